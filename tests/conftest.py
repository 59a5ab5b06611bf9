"""What every test shares: a home of its own, quiet libraries, and one browser."""

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import Outcome
from homes import with_models
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# One thread: where another process holds a core, two threads wait for each other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's workers give way to everybody else unless told not to: they would hardly run while the other process of the tests computes.
os.environ.setdefault("RAY_worker_niceness", "0")
# The width of what is printed depends neither on the terminal nor on the order of the tests.
os.environ["COLUMNS"] = "160"
# An error that raysp did not foresee fails the test with its traceback.
os.environ["RAYSP_TRACEBACK"] = "1"
# Tests bring a token of their own: whether this machine has one must not matter.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
# Processes that share the tests have a Ray each: one must not find, and join, the other's. Ray's sockets need a short path.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix=f"ray-{worker}-")
    atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: Folders and files of tests that take longest. They come first, so that processes that share the tests end at about the same time.
LONGEST = ("service", "web", "remote", "runtime", "cluster", "commands", "test_docs.py", "jobs", "robustness", "report", "models", "lenses")

# No test fails because the machine is busy.
settings.register_profile("raysp", deadline=None)
settings.load_profile("raysp")


class FileByFile(LoadFileScheduling):
    """Each process is given a file at a time, and those of tests/service, of tests/web and of tests/remote together, as they share a Ray."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return str(Path(file).parent) if {"service", "web", "remote"} & set(Path(file).parts) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return FileByFile(config, log)


def pytest_collection_modifyitems(items):
    def place(item):
        within = item.path.relative_to(Path(__file__).parent).parts[0]
        return LONGEST.index(within) if within in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Stores go into a folder of the test; the dequantised model is kept for the whole machine."""
    folder = with_models(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("RAYSP_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """A run may set the threads of its process, and those that follow would wait for each other with two."""
    yield
    if "torch" in sys.modules:
        from raysp.models.threads import set_threads

        if sys.modules["torch"].get_num_threads() > 1:
            set_threads(1)


@pytest.fixture(scope="session")
def browser():
    """Chromium, started once: Playwright can be started only once in a process."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def cli(capsysbinary):
    """Run a command line in this process, which has loaded the libraries already."""
    from raysp.cli import main  # when a test asks for it: tests/test_imports.py looks at what importing raysp loads

    def run(*arguments):
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        return Outcome(left.value.code or 0, *(stream.decode("utf-8", "replace") for stream in capsysbinary.readouterr()))

    return run
