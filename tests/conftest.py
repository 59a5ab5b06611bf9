"""What every test shares: a home of its own, and quiet libraries."""

import atexit
import os
import secrets
import shutil
import tempfile

import pytest
from command_line import Outcome
from homes import with_models
from hypothesis import settings

# One thread: where another process holds a core, two threads wait for each other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# The width of what is printed depends neither on the terminal nor on the order of the tests.
os.environ["COLUMNS"] = "160"
# Tests bring a token of their own: whether this machine has one must not matter.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
# Processes that share the tests have a Ray each: one must not find, and join, the other's. Ray's sockets need a short path.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix=f"ray-{worker}-")
    atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

# No test fails because the machine is busy.
settings.register_profile("raysp", deadline=None)
settings.load_profile("raysp")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Stores go into a folder of the test; the dequantised model is kept for the whole machine."""
    folder = with_models(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("RAYSP_HOME", str(folder))
    return folder


@pytest.fixture
def cli(capsys):
    """Run a command line in this process, which has loaded the libraries already."""
    from raysp.cli import main  # when a test asks for it: tests/test_imports.py looks at what importing raysp loads

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        return Outcome(left.value.code or 0, *capsys.readouterr())

    return run
