"""One service for all tests of this folder, on a Ray of its own, with its web end on a port that is free."""

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from tiny_models import save

import raysp
from raysp.home import web_token_file
from raysp.runtime import service as services
from raysp.store import Store

sys.path.append(str(Path(__file__).parents[1] / "report"))

import pages

UNCHECKED = raysp.Validation(heldout=6, top=2, random=0, low_pairs=0)
POLICY = "files: true\n"


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """The home and the service of all tests here. Its policy allows folders of models, as it has no other models; its store has a run with tails and points."""
    home = tmp_path_factory.mktemp("remote")
    with Store.open(home / "raysp.duckdb") as store:
        pages.with_tails(store)
    (home / "policy.yaml").write_text(POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSP_HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        found, _ = services.up(policy=str(home / "policy.yaml"), port=0)
        token = web_token_file().read_text().strip()
    yield home, found.web, token, found
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSP_HOME", str(home))
        services.down()


@pytest.fixture(scope="session")
def remote(started):
    """The service as somebody elsewhere has it."""
    _, url, token, _ = started
    with raysp.connect(url, token) as found:
        yield found


@pytest.fixture(scope="session")
def model(started):
    home, *_ = started
    return save("llama", home / "llama")


@pytest.fixture(scope="session")
def spec(model):
    lens = raysp.FeatureLens(model=model, prompt="Her acting never fails to impress", target=" not", foil="!", dtype="float32")
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=40), validation=UNCHECKED, name="asked")


@pytest.fixture(scope="session")
def answer(remote, spec):
    return remote.run(spec)


@pytest.fixture
def elsewhere(started, tmp_path, monkeypatch):
    """A home without a service, on a machine that knows the URL and the token of one."""
    _, url, token, _ = started
    monkeypatch.setenv("RAYSP_HOME", str(tmp_path))
    monkeypatch.setenv("RAYSP_SERVER", url)
    monkeypatch.setenv("RAYSP_TOKEN", token)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def standing_before(url, handle):
    """A proxy before a service, as clusters have them: `handle(request, forward)` answers each request, and `forward()` is what the service answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _serve(self):
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection", "content-length", "accept-encoding")}

            def forward():
                return httpx.request(self.command, url + self.path, content=body, headers=kept, timeout=120)

            handle(self, forward)

        do_GET = do_POST = _serve  # noqa: N815  names of the library

        def answer(self, response):
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name.lower() not in ("transfer-encoding", "content-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def cut(self):
            """Lose the connection."""
            self.close_connection = True
            self.connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(started):
    """Stand something before the service."""
    return lambda handle: standing_before(started[1], handle)
