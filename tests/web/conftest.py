"""One service for the tests of this folder, started by `raysp up`, and a browser that is logged in to it."""

import json
from dataclasses import dataclass
from functools import cached_property

import httpx
import pytest
import stored_runs
from command_line import process
from homes import with_models
from tiny_models import save
from waiting import until

#: What Chromium reports of requests that a page expects to fail, such as of a question that cannot be asked yet.
ANSWERED = "Failed to load resource:"
#: What questions of tests have in common: they are about a model of a few thousand weights.
VALIDATION = {"heldout": 10, "top": 2, "random": 1, "low_pairs": 1}
PROMPT = "Her acting never fails to impress"
TRAIN = "".join(json.dumps({"prompt": f"What is {k} and {k}?", "completion": f" {2 * k}"}) + "\n" for k in range(8))
ENDED = ("done", "failed", "cancelled", "interrupted")


@dataclass(frozen=True)
class Service:
    """A service: where it listens, its token, the folder of a tiny model that it may load, and a client that has the token."""

    url: str
    token: str
    model: str

    @cached_property
    def client(self):
        return httpx.Client(base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=120)

    @cached_property
    def cookie(self):
        """The cookie of a session."""
        answer = httpx.post(f"{self.url}/login", data={"token": self.token}, headers={"Origin": self.url}, follow_redirects=False)
        (name, value), *_ = answer.cookies.items()
        return {"name": name, "value": value, "url": self.url}

    def read(self, path, **parameters):
        """What the service answers, once it does: a machine that is busy may keep its store from being read for a while."""

        def asked():
            answer = self.client.get(path, params=parameters)
            return None if answer.status_code == 503 else answer

        found = until(path, asked)
        assert found.status_code == 200, found.text
        return found.json()

    def question(self, kind="feature", **lens):
        """A small question about the tiny model."""
        options = {"feature": {"prompt": PROMPT, "target": " good", "foil": " bad"}, "mechanistic": {"prompt": PROMPT, "target": " good", "foil": " bad"}}
        found = {"kind": kind, "model": self.model, "dtype": "float32", **options.get(kind, {}), **lens}
        return {"lens": found, "explorer": {"kind": "proxyspex", "budget": 40}, "validation": VALIDATION}

    def submit(self, question, **parameters):
        """The id of a run that asks this."""
        answer = self.client.post("/runs", json=question, params=parameters)
        assert answer.status_code == 201, answer.text
        return answer.json()["runs"][0]["run_id"]

    def finished(self, run_id):
        """Wait until a run is done; its id."""
        state = until(f"run {run_id}", lambda: next((row for row in [self.client.get(f"/runs/{run_id}").json()] if row["status"] in ENDED), None))
        assert state["status"] == "done", state["error"]
        return run_id


@pytest.fixture(scope="package")
def service(tmp_path_factory):
    """A running service with a store and a home of its own, in which `stored_runs` are. Questions may name files, as the tiny model lies in a folder."""
    home = with_models(tmp_path_factory.mktemp("web"))
    model = save("llama", home / "tiny", begins=True)
    stored_runs.write(home / "raysp.duckdb")
    (home / "policy.yaml").write_text("files: true\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        started = process("up", "--port", "0", "--policy", str(home / "policy.yaml"), "--json", home=home)
        assert started.code == 0, started.err
        found = Service(json.loads(started.out)["url"], process("token", home=home).out.strip(), model)
    until("the service", lambda: httpx.get(f"{found.url}/api/v1/health").status_code == 200)
    yield found
    found.client.close()
    process("down", home=home)


class Answered(dict):
    """The ids of finished runs, each asked when a test first needs it."""

    def __init__(self, service, questions):
        super().__init__()
        self._service, self._questions = service, questions

    def __missing__(self, name):
        self[name] = self._service.finished(self._service.submit(self._questions[name]))
        return self[name]


@pytest.fixture(scope="package")
def answered(service, tmp_path_factory):
    """The ids of finished runs: `feature`, `other` (the same prompt, another question), `mechanistic` and `data`."""
    train = tmp_path_factory.mktemp("train") / "train.jsonl"
    train.write_text(TRAIN)
    data = service.question("data", train=str(train), query_count=2, epochs=1, adapted_layers="last:1", max_tokens=32)
    questions = {
        "feature": service.question() | {"name": "first"},
        "other": service.question(foil=" dull") | {"name": "second", "seed": 1},
        "mechanistic": service.question("mechanistic", components="heads", layers="0") | {"explorer": {"kind": "proxyspex", "budget": 64}},
        "data": data | {"explorer": {"kind": "proxyspex", "budget": 40}, "validation": {**VALIDATION, "heldout": 4}},
    }
    return Answered(service, questions)


@pytest.fixture
def open_page(service, browser):
    """Open a page of the service, logged in. What it complains about, what its policy refuses and requests to elsewhere fail the test."""
    context = browser.new_context(base_url=service.url, accept_downloads=True)
    context.add_cookies([service.cookie])
    complaints = []

    def console(message):
        if message.type == "error" and not (message.text.startswith(ANSWERED) and "/api/v1/" in message.location["url"]):
            complaints.append(message.text)

    def go(path, width=1280, scheme="light"):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.on("console", console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: None if request.url.startswith((service.url, "data:", "blob:")) else complaints.append(request.url))
        page.goto(path)
        return page

    yield go
    context.close()
    assert not complaints
