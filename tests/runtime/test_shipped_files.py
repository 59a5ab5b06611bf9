"""Questions whose files are gone by the time they are answered: every process of the cluster is given their content."""

import json
import shutil
import time
from pathlib import Path

import pytest
import ray
from tiny_models import save

import raysp
from raysp.runs.state import RunRequest
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.link import Link
from raysp.runtime.scheduler import NAME, scheduler
from raysp.specs.policy import Policy
from raysp.specs.run import resolve

ROWS = [{"prompt": f"The number after {i} is", "completion": f" {i + 1}"} for i in range(6)]


@pytest.fixture(scope="module")
def cluster():
    """A Ray of one's own."""
    yield ray.init(num_cpus=1, include_dashboard=False, namespace=NAMESPACE, log_to_driver=False)
    ray.shutdown()


@pytest.fixture
def service(cluster, request):
    """A scheduler with the policy that the test names, by default one that allows folders of models."""
    link = Link(lambda: scheduler(getattr(request, "param", Policy(files=True))))
    yield link
    link.call("close")
    for actor in ray.util.list_named_actors(all_namespaces=True):
        ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)
    while any(actor["name"].startswith("raysp:") for actor in ray.util.list_named_actors(all_namespaces=True)):
        time.sleep(0.05)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("model") / "tiny")


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def trainings(folder, model, store):
    recipe = {"epochs": 1, "rank": 2, "adapted_layers": "last:1"}
    lens = raysp.DataLens(
        train=lines(folder / "rows.jsonl", ROWS[:4]), queries=lines(folder / "queries.jsonl", ROWS[4:]), model=model, dtype="float32", device="cpu", **recipe
    )
    return resolve(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), validation=raysp.Validation(heldout=4, top=1, random=0, low_pairs=0), store=store))


def parts(folder, model, store):
    (folder / "spans.json").write_text("[[0, 3], [4, 8], [9, 12], [13, 18]]")
    (folder / "scores.json").write_text("[4, 3, 2, 1]")
    lens = raysp.FeatureLens(
        prompt="the film was never dull",
        unit="spans",
        spans=str(folder / "spans.json"),
        target=" good",
        foil=" bad",
        model=model,
        dtype="float32",
        device="cpu",
    )
    return resolve(raysp.RunSpec(lens=lens, explorer=raysp.Screen(scores=str(folder / "scores.json"), budget=14), store=store))


def ended(link, run_id):
    """How a run ended, after waiting for it."""
    seen = {run_id: -1}
    while True:
        for state in link.call("follow", [run_id], seen, 1.0):
            seen[run_id] = state.version
            if state.ended:
                return state


def test_workers_answer_what_was_asked_with_files_that_are_gone(service, tmp_path, model):
    here, files = str(tmp_path / "here.duckdb"), tmp_path / "files"
    asked = {"data": trainings(files, model, here), "feature": parts(files, model, here)}
    expected = {name: raysp.run(spec.model_copy(update={"local": True})) for name, spec in asked.items()}
    there = str(tmp_path / "there.duckdb")
    requests = [RunRequest(spec.model_copy(update={"store": there}), name).with_content() for name, spec in asked.items()]
    shutil.rmtree(files)
    service.call("submit", requests)
    ray.kill(ray.get_actor(NAME, NAMESPACE), no_restart=False)  # whoever comes back has nothing but the store
    for name, local in expected.items():
        state = ended(service, name)
        assert state.status == "done", state.error
        found = service.call("result", name)
        assert found.summary["game"]["fingerprint"] == local.summary["game"]["fingerprint"]
        assert found.interactions.equals(local.interactions)
        assert found.singles.equals(local.singles)


@pytest.mark.parametrize("service", [Policy()], indirect=True)
def test_a_service_opens_no_file_of_its_own_for_those_who_ask(service, tmp_path, model):
    spec = raysp.RunSpec(lens=raysp.FeatureLens(prompt="a b", model=model), store=None)
    with pytest.raises(
        raysp.UserError, match=r"^model: '.*tiny' names a folder of the service's machines; .* files: true written into the policy of the service$"
    ):
        service.call("submit", [RunRequest(spec, "r").with_content()])
    with pytest.raises(raysp.UserError, match=r"^store: .* names a file of the service's machines"):
        service.call("submit", [RunRequest(raysp.RunSpec(lens=raysp.FeatureLens(prompt="a b"), store=str(tmp_path / "s.duckdb")), "r")])
    with pytest.raises(raysp.UserError, match=r"^train: '/etc/passwd' names a file of the service's machines"):
        service.call("attach", "s", "i", Path(tmp_path / "s.duckdb"), "s", 5, raysp.DataLens(train="/etc/passwd"), None)
    with pytest.raises(raysp.UserError, match=r"^train: '/etc/passwd' names a file of the service's machines"):
        service.call("ask", "s", "gradient_report", raysp.DataLens(train="/etc/passwd"), "fingerprint")
    for asked in (
        ("attach", "s", "i", tmp_path / "s.duckdb", "s", 5, raysp.FeatureLens(prompt="a b"), None),
        ("store_call", tmp_path / "s.duckdb", "pace", (1,), {}),
    ):
        with pytest.raises(raysp.UserError, match=r"^store: .*s.duckdb' names a file of the service's machines"):
            service.call(*asked)
    assert not (tmp_path / "s.duckdb").exists()
