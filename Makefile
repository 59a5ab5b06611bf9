# `make demo` answers an example question; `make check`, `make test` and `make cluster` are what .ci/run runs.
# `make cluster` starts deployments: jobs from outside, several hosts, Slurm's batch script, a real Prometheus.
# `make test-dtypes` runs the tests with either dtype as what `auto` chooses.
# `make chaos` kills processes and nodes of a service again and again, which `make test` leaves out.
# `make fuzz` tries 5,000 specs and queries, and every command line of tests/robustness, and REST requests.
# Choose another Python or folder with `make install PYTHON=python3.13 VENV=/tmp/venv313`.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTHON ?= python3
# Two processes share the tests, a file each at a time; each test computes on one thread.
TESTS := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-dtypes cluster chaos fuzz check format browser prometheus clean

install: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml cluster/constraints.txt cluster/embedded.txt
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip
	@$(PIP) install --quiet --no-compile --constraint cluster/constraints.txt --editable '.[dev]'
	@$(PIP) install --quiet --no-deps --requirement cluster/embedded.txt
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # on all cores, where pip would use one; some packages carry files of other Pythons
	@touch $@

demo: install
	mkdir -p out
	$(BIN)/raysp run jobs/specs/feature.yaml --report out/demo.html

test: install browser prometheus
	$(TESTS)

test-dtypes: install browser prometheus
	RAYSP_AUTO_DTYPE=float32 $(TESTS)
	RAYSP_AUTO_DTYPE=bfloat16 $(TESTS)

cluster: install prometheus
	$(TESTS) -m cluster tests/service tests/runtime tests/cluster

chaos: install
	$(BIN)/python -m pytest -m chaos tests/service tests/runtime tests/faults

fuzz: install
	RAYSP_FUZZ_EXAMPLES=5000 RAYSP_FUZZ_STEP=1 $(BIN)/python -m pytest tests/robustness tests/web/test_openapi.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The report is tested in a real browser. Where none can be installed, those tests are skipped with a message.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	  echo "chromium not found and not installable here: the browser tests will be skipped"

# The alert rules are tested with Prometheus and its promtool. Where they cannot be installed, those tests are skipped with a message.
prometheus:
	@command -v promtool >/dev/null || \
	  { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } || \
	  echo "promtool not found and not installable here: the tests of the alert rules will be skipped"

clean:
	rm -rf $(VENV) out .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
