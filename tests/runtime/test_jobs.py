"""Questions sent to a cluster as Ray jobs, by its dashboard's address alone: what travels, what comes back, and what a stopped job leaves."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import requests
from ray.util.state import list_actors
from services import free_port
from tiny_models import save
from waiting import until

import raysp
from raysp.errors import UserError
from raysp.runs.package import QUESTION, Package, read_package, write_package
from raysp.runs.state import RunRequest
from raysp.runtime import jobs

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
TEXTS = ("It never fails", "The film was long")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of the dashboard of a head that knows nothing of raysp but that it is installed, and the home of its service."""
    home, folder = tmp_path_factory.mktemp("head"), tempfile.mkdtemp(prefix="rj-")
    port, dashboard, agent, client = (free_port() for _ in range(4))
    words = [*RAY, "start", "--head", "--block", "--num-cpus=1", "--disable-usage-stats", f"--temp-dir={folder}", f"--port={port}"]
    words += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAYSP_HOME": str(home), "PATH": path}
    with (home / "ray.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        until("the dashboard", lambda: answers(address) or process.poll() is not None)
        yield address, home
    finally:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:  # a head that is asked to end drains its node first, for half a minute
            each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture
def spec(model, tmp_path, monkeypatch):
    """The path of a spec about two examples, in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": text, "target": " not", "foil": "!"} for text in TEXTS]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("effects.json").write_text("[0.5, 0.25, 0.125]")
    lens = f"lens: {{kind: feature, model: {model}, prompt: '', unit: word, dtype: float32, device: cpu}}\n"
    Path("spec.yaml").write_text(f"{lens}explorer: {{kind: exhaustive}}\nexamples: rows.jsonl\nthreads: 1\nname: two\n")
    return "spec.yaml"


def answers(address):
    try:
        return requests.get(f"{address}/api/version", headers=token(), timeout=5).ok
    except requests.RequestException:
        return False


def token():
    return {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}


def job(address, job_id):
    """What the dashboard shows of a job."""
    return requests.get(f"{address}/api/jobs/{job_id}", headers=token(), timeout=30).json()


def test_a_package_holds_the_question_and_the_content_of_its_files_and_nothing_else(spec, model, tmp_path):
    lens = raysp.FeatureLens(model=model, prompt="It never fails", target=" not", foil="!")
    asked = raysp.RunSpec(lens=lens, explorer={"kind": "screen", "scores": "effects.json"})
    folder = tmp_path / "package"
    folder.mkdir()
    write_package(folder, Package((RunRequest(asked, "first", None, 7),), "cancel", json=True))
    content = Path("effects.json").read_bytes()
    Path("effects.json").unlink()
    found = read_package(folder)
    assert min(path.stat().st_size for path in folder.rglob("*") if path.is_file()) == len(content)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
    [request] = found.requests
    assert (request.run_id, request.priority, found.when_stopped, found.json) == ("first", 7, "cancel", True)
    assert list(request.content.values()) == [content]
    assert request.with_content().spec.lens.model_hash == request.spec.lens.model_hash is not None


def test_a_package_of_another_version_is_refused_in_one_line(tmp_path):
    (tmp_path / QUESTION).write_text(json.dumps({"version": "0.0.1"}))
    with pytest.raises(UserError, match=rf"^raysp: '0.0.1' sent the question, but {raysp.__version__} is installed on the head; "):
        read_package(tmp_path)


def test_a_model_that_differs_from_the_one_that_was_asked_about_stays_told_apart(model, tmp_path):
    """The head must not take its own model for the sender's."""
    lens = raysp.FeatureLens(model=model, prompt="It never fails", target=" not", foil="!", model_hash="f" * 64)
    assert RunRequest(raysp.RunSpec(lens=lens), "other").with_content().spec.lens.model_hash == "f" * 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--address", "10.0.0.5:6379"], "address: '10.0.0.5:6379' is not the address of a dashboard"),
        (["--address", "http://127.0.0.1:9"], "address: 'http://127.0.0.1:9' does not answer"),
        (["--address", "http://127.0.0.1:9", "--store", "here.duckdb"], "store: 'here.duckdb' is not a full path"),
        (["--address", "http://127.0.0.1:9", "--when-stopped", "later"], "when_stopped: 'later' is not known"),
        (["--when-stopped", "pause"], "when_stopped: 'pause' is for jobs"),
    ],
)
def test_what_cannot_be_sent_is_one_line(spec, cli, words, told):
    done = cli("submit", spec, *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"raysp: {told}")


@pytest.mark.cluster
def test_a_question_is_answered_as_here_and_the_job_can_be_recognised(head, spec, cli, tmp_path):
    address, home = head
    done = cli("submit", spec, "--address", address, "--follow", "--json", "--priority", "7")
    assert done.code == 0, done.err
    assert done.err == ""
    found = json.loads(done.out)["runs"]
    here = json.loads(cli("run", spec, "--local", "--json", "--store", str(tmp_path / "here.duckdb")).out)["runs"]
    for there, expected in zip(found, here, strict=True):
        assert there["summary"]["status"] == "done"
        assert [row["value"] for row in there["interactions"]] == pytest.approx([row["value"] for row in expected["interactions"]], abs=1e-5)
    word = found[0]["run_id"].rpartition("-")[0]
    shown = job(address, f"raysp-{word}")
    assert (shown["status"], shown["driver_exit_code"]) == ("SUCCEEDED", 0)
    metadata = {"job_name": f"raysp {word} feature (2 runs)", "run": word, "name": "two", "lens": "feature", "explorer": "exhaustive", "priority": "7"}
    assert metadata.items() <= shown["metadata"].items()
    logged = requests.get(f"{address}/api/jobs/raysp-{word}/logs", headers=token(), timeout=30).json()["logs"]
    assert "2 of 2 runs" in logged
    actors = list_actors(address=address, detail=True, filters=[("class_name", "=", "Scheduler")])
    assert actors
    assert not any("working_dir" in (actor.serialized_runtime_env or "") for actor in actors), "a question's package is kept by what serves others"
    assert (home / "raysp.duckdb").exists()


@pytest.mark.cluster
def test_a_job_that_is_stopped_pauses_its_run_and_whoever_follows_is_told(head, spec, tmp_path):
    address, home = head
    long = Path("spec.yaml").read_text().replace("examples: rows.jsonl\n", "").replace("prompt: ''", f"prompt: '{' '.join(f'w{i}' for i in range(15))}'")
    Path("long.yaml").write_text(long.replace("name: two", "name: endless") + "validation: {heldout: 0}\n")
    command = [sys.executable, "-m", "raysp", "submit", "long.yaml", "--address", address, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as following:
        assert next(line for line in following.stderr if line.startswith("explore "))
        job_id = following.stdout.readline().split()[-1]
        assert requests.post(f"{address}/api/jobs/{job_id}/stop", headers=token(), timeout=30).json() == {"stopped": True}
        out, told = following.communicate(timeout=120)
    run_id = job_id.removeprefix("raysp-")
    expected = f"raysp: the job was stopped; run {run_id} will be paused after the batches under way, and `raysp resume RUN` on the cluster continues"
    assert told.splitlines()[-1].startswith(expected), told
    assert (following.returncode, out) == (130, "")
    assert job(address, job_id)["status"] == "STOPPED"

    def status():
        with raysp.Store.read(home / "raysp.duckdb") as store:
            return store.run_row(run_id)["status"]

    until("the pause", lambda: status() == "paused")


@pytest.mark.cluster
def test_a_head_without_raysp_or_python_is_one_line(head, spec, cli, monkeypatch):
    address, _ = head
    for entrypoint, told in (("python -I -S -m raysp job .", "has no raysp on its head"), ("nopython -m raysp", "has no python on the PATH of its head")):
        monkeypatch.setattr(jobs, "ENTRYPOINT", entrypoint)
        done = cli("submit", spec, "--address", address)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
        assert told in done.err


@pytest.mark.cluster
@pytest.mark.parametrize("given", [{"RAY_AUTH_TOKEN": "ab" * 32}, {}], ids=["wrong", "missing"])
def test_a_token_that_is_missing_or_wrong_is_one_line(head, spec, tmp_path, given):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-m", "raysp", "submit", spec, "--address", head[0]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | given, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("raysp: token: is missing, or is not that of the cluster; ")


@pytest.mark.cluster
def test_rays_own_command_works_beside_it(head, spec, cli, tmp_path):
    address, _ = head
    command = [*RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--", "python", "jobs/run.py", str(tmp_path / spec), "--json"]
    Path(spec).write_text(Path(spec).read_text().replace("rows.jsonl", str(tmp_path / "rows.jsonl")))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"status": "done"') == len(TEXTS)
