"""The service: `raysp up` to `raysp down`, on a Ray head of its own, with real commands that are interrupted and a scheduler and a head that are killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray._private import worker
from tiny_models import save
from waiting import until

import raysp
from raysp.cli import main
from raysp.runs.state import RunRequest
from raysp.runtime import service as services
from raysp.runtime.client import attached
from raysp.runtime.service import read_service

N = 10
FOLLOW_ONCE_THE_HEAD_IS_GONE = """
import sys
from raysp.runtime import client
client.HEAD_SECONDS, client.LOOK_SECONDS = 2.0, 0.2
from raysp.cli import main
main(["watch", "endless"])
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The home of a service, which is up once for all tests here."""
    home = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSP_HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        services.up()
    yield home
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSP_HOME", str(home))
        services.down()


@pytest.fixture
def up(started, home, monkeypatch):
    monkeypatch.setenv("RAYSP_HOME", str(started))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return started


@pytest.fixture
def command(capsys):
    """Run a command line here: its exit code, what it prints as JSON if it can be read as such, and its stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        told = capsys.readouterr()
        return ended.value.code, json.loads(told.out) if "--json" in words and told.out else told.out, told.err

    return run


def process(*words):
    """A command line in a process of its own, which can be interrupted."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from raysp.cli import main; main(sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def request(run_id, function, priority=5, **options):
    spec = raysp.RunSpec(lens=raysp.FunctionLens(function, n=N, batch_masks=16), explorer=raysp.ProxySPEX(budget=400).options, name=run_id, **options)
    return RunRequest(spec, run_id, priority=priority)


def planted(masks):
    return masks.sum(axis=1) + 3.0 * masks[:, 0] * masks[:, 1]


def slow(masks):
    time.sleep(0.1)
    return planted(masks)


def held(released):
    """A function that measures the two ends, and nothing else before a file is there."""

    def measured(masks):
        while len(masks) > 2 and not released.exists():
            time.sleep(0.05)
        return planted(masks)

    return measured


def wait(client, run_id, *statuses):
    deadline = time.monotonic() + 60
    while (state := client.states([run_id])[0]).status not in statuses:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def wait_measuring(client, run_id):
    """Wait until a run has evaluations."""
    deadline = time.monotonic() + 60
    while not ((state := client.states([run_id])[0]).progress and state.progress.done):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


@pytest.fixture
def folder(monkeypatch):
    """Where Ray keeps what it writes. Paths of its sockets must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        yield Path(place)


def test_a_start_that_is_interrupted_leaves_nothing(home, folder, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with process("up") as starting:
        until("the head starts", lambda: [*folder.glob("raysp-*/session_*/sockets")], 60)
        starting.send_signal(signal.SIGINT)
        _, err = starting.communicate(timeout=60)
    assert starting.returncode == 130, err
    assert not [*folder.iterdir()]
    until("no process of the head is left", lambda: str(folder) not in command_lines(), 20)
    assert read_service() is None


def command_lines():
    """Those of all processes of this machine."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_service_that_is_up_stays_up_and_its_file_is_private(up, command):
    assert (up / "service.json").stat().st_mode & 0o777 == 0o600
    before = read_service()
    told = {"address": before.address, "store": str(up / "raysp.duckdb"), "pid": before.pid, "url": before.web, "started": False}
    assert command("up", "--json") == (0, told, "")
    code, _, told = command("up", "--store", str(up / "other.duckdb"))
    assert (code, "is not that of the service of this home" in told) == (2, True)
    (up / "policy.yaml").write_text("functions: false\n")
    code, _, told = command("up", "--policy", str(up / "policy.yaml"))
    assert (code, "is read when a service starts" in told) == (2, True)
    code, found, _ = command("status", "--json")
    assert (code, found["running"], found["address"], found["url"], found["version"]) == (0, True, before.address, before.web, raysp.__version__)


def test_whoever_stops_watching_stops_nothing_else(up, tmp_path):
    released = tmp_path / "released"
    with attached() as client:
        client.submit([request("watched", held(released))])
        with process("watch", "watched") as watching:
            assert next(line for line in watching.stderr if "explore" in line)
            watching.send_signal(signal.SIGTERM)
            rest = watching.stderr.read()
        assert watching.returncode == 130, rest
        assert rest.splitlines()[-1] == "raysp: the run goes on; `raysp watch watched` follows again"
        assert "Traceback" not in rest
        assert client.states(["watched"])[0].status == "running"
        released.touch()
        assert list(client.follow(["watched"]))[-1].status == "done"


def test_a_run_is_paused_resumed_and_cancelled(up, command, tmp_path):
    released = tmp_path / "released"
    with attached() as client:
        client.submit([request("steered", held(released))])
        wait_measuring(client, "steered")
        before = client.states(["steered"])[0].progress.done
        assert command("pause", "steered", "--json")[1]["runs"][0]["desired"] == "paused"
        released.touch()
        assert wait(client, "steered", "paused").desired == "paused"
        with raysp.Store.read(up / "raysp.duckdb") as store:
            assert store.run_evaluations("steered").num_rows > before, "the batches under way are not lost"
        released.unlink()
        with process("resume", "steered", "--json") as resuming:
            wait(client, "steered", "running")
            assert command("cancel", "steered")[0] == 0
            released.touch()
            assert wait(client, "steered", "cancelled").error is None
            told = resuming.stderr.read()
            assert told.splitlines()[-1] == "raysp: run steered was cancelled; `raysp resume steered` continues from what is stored"
            assert (resuming.wait(), resuming.stdout.read()) == (130, "")
        code, _, told = command("pause", "steered")
        assert (code, told) == (2, "raysp: run: 'steered' is cancelled and cannot be paused; `raysp resume steered` starts it again\n")
        client.steer("steered", "running")
        assert list(client.follow(["steered"]))[-1].status == "done"
        result = client.result("steered")
        assert sum(result.costs["evaluations"].to_pylist()) == len(set(result.evaluations["evaluation_id"].to_pylist()))


def test_what_ray_says_about_dead_nodes_goes_to_stderr(up, capsys):
    with attached():
        worker.print_to_stdstream({"lines": ["a node died"], "pid": "raylet", "ip": "127.0.0.1", "job": None, "is_err": False}, ignore_prefix=False)
        told = capsys.readouterr()
        assert (told.out, "a node died" in told.err) == ("", True)


def test_an_unknown_run_is_one_line(up, command):
    for name in ("watch", "cancel", "pause"):
        code, _, told = command(name, "nosuchrun")
        assert (code, told.count("\n"), told[:31]) == (2, 1, "raysp: run: 'nosuchrun' is unkn")


@pytest.mark.chaos
def test_a_set_of_examples_is_submitted_whole_and_outlives_the_head_whose_loss_is_told_in_one_line(up, command, tmp_path):
    rows = [{"prompt": text, "target": " not", "foil": "!"} for text in ("It never fails", "The film was long", "Her acting impressed")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "spec.yaml").write_text(
        f"lens: {{kind: feature, model: {save('llama', tmp_path / 'llama')}, prompt: '', dtype: float32}}\n"
        f"explorer: {{kind: exhaustive}}\nexamples: {tmp_path / 'rows.jsonl'}\nname: three\n"
    )
    with attached() as client:
        client.submit([request("endless", held(tmp_path / "never"))])
        wait_measuring(client, "endless")  # all evaluators are busy with it
        code, submitted, _ = command("submit", str(tmp_path / "spec.yaml"), "--priority", "7", "--json")
    ids = [run["run_id"] for run in submitted["runs"]]
    together = ids[0].rpartition("-")[0]
    assert (code, ids) == (0, [f"{together}-{number}" for number in (1, 2, 3)])
    assert {run["priority"] for run in submitted["runs"]} == {7}
    lost = read_service()
    command_line = [sys.executable, "-c", FOLLOW_ONCE_THE_HEAD_IS_GONE]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as watching:
        assert next(line for line in watching.stderr if "explore" in line)
        os.killpg(lost.pid, signal.SIGKILL)
        out, told = watching.communicate(timeout=90)
    assert (out, watching.returncode, "Traceback" in told) == ("", 2, False), told
    assert told.splitlines()[-1] == (
        f"raysp: cluster: '{lost.address}' has lost its head node; what was measured is stored: once the cluster is back, `raysp resume RUN` continues a run"
    )
    assert command("status", "--json")[1]["running"] is False
    code, began, told = command("up", "--json")
    assert (code, told) == (0, "")
    assert began["started"] is True
    code, followed, _ = command("watch", together, "--json")
    assert (code, [(run["run_id"], run["summary"]["status"]) for run in followed["runs"]]) == (0, [(run_id, "done") for run_id in ids])
    listed = {run["run_id"]: run for run in command("runs", "--json")[1]}
    assert all(listed[run_id]["progress"]["done"] == listed[run_id]["progress"]["total"] > 0 for run_id in ids)
    assert (listed["endless"]["status"], "cannot be read back" in listed["endless"]["error"]) == ("interrupted", True)


def test_without_a_service_commands_say_how_to_start_one(home, monkeypatch, command, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for words in (("watch", "last"), ("cancel", "last"), ("pause", "last")):
        code, _, told = command(*words)
        assert (code, told) == (2, "raysp: service: is not running; start it with `raysp up`, or run here with `raysp run`\n")
    assert command("status", "--json")[1] == {"running": False, "address": None}
    assert command("down", "--json")[1] == {"address": None, "interrupted": []}
