# Everything a fresh machine needs: `make demo` answers a question, `make test` passes the tests.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: install demo test check format browser clean

install: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml cluster/constraints.txt cluster/embedded.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint cluster/constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement cluster/embedded.txt
	touch $@

demo: install
	mkdir -p out
	$(BIN)/raysp run jobs/specs/feature.yaml --report out/demo.html

test: install browser
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The report is tested in a real browser. Without rights to install one, those tests are skipped and say so.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	  echo "no chromium here: the browser tests will be skipped"

clean:
	rm -rf $(VENV) out .pytest_cache .ruff_cache .hypothesis *.egg-info
