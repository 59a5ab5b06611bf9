"""A service that is missing, wrong, restarted or behind something that loses connections: one line for a person, and nothing asked twice."""

import itertools
import secrets
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

import raysp
from raysp.remote import following, transport
from raysp.remote.address import Address, checked_url
from raysp.runs.progress import Progress
from raysp.runs.state import RunState


def message(call):
    with pytest.raises(raysp.UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def slow(spec):
    """A question that takes long enough to be cancelled while it is followed, and of which no other test has left anything in the store."""
    lens = spec.lens.model_copy(update={"prompt": " ".join("acting" for _ in range(30))})
    return spec.model_copy(update={"lens": lens, "explorer": raysp.ProxySPEX(budget=200_000).options, "seed": secrets.randbelow(2**31)})


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(transport, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.01)


class Stranger(BaseHTTPRequestHandler):
    """Some other web server."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>")


@pytest.fixture
def stranger():
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


# ---- who and where


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8270/", "http://127.0.0.1:8270"),
        ("https://raysp.example/team/api/v1", "https://raysp.example/team"),
        ("http://[::1]:8270", "http://[::1]:8270"),
    ],
)
def test_a_url_is_read_as_it_is_meant(given, url):
    assert checked_url(given, "server") == url


@pytest.mark.parametrize("given", ["localhost:8270", "ftp://host", "http://", "http://user:secret@host", "http://host:99999", "http://host/?token=x"])
def test_what_is_no_address_is_refused(given):
    told = message(lambda: checked_url(given, "server"))
    assert told.startswith("server: ")
    assert "secret" not in told


def test_what_is_missing_is_named(home, monkeypatch):
    for name in ("RAYSP_SERVER", "RAYSP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert message(Address.of).startswith("server: is missing")
    monkeypatch.setenv("RAYSP_SERVER", "http://127.0.0.1:1")
    assert message(Address.of).startswith("token: is missing; set RAYSP_TOKEN")
    monkeypatch.setenv("RAYSP_TOKEN", "two words")
    assert message(Address.of).startswith("RAYSP_TOKEN: is not a token")
    (home / "web_token").write_text("of-the-home-0123456789\n")
    monkeypatch.delenv("RAYSP_TOKEN")
    assert Address.of().token == "of-the-home-0123456789"
    assert "0123456789" not in repr(Address.of())


def test_the_wrong_token_is_said_to_be_wrong_by_its_name(started, monkeypatch):
    _, url, *_ = started
    monkeypatch.setenv("RAYSP_TOKEN", "wrong-token-0123456789")
    told = message(lambda: raysp.connect(url))
    assert told.startswith(f"RAYSP_TOKEN: is refused by the service at {url}")
    assert "wrong-token" not in told


def test_nobody_and_somebody_else_at_the_address(stranger, monkeypatch):
    monkeypatch.setattr("raysp.remote.service.FIRST_SECONDS", 0.0)
    assert "cannot be reached" in message(lambda: raysp.connect("http://127.0.0.1:1", "token"))
    url = f"http://127.0.0.1:{stranger.server_port}"
    assert "something other than raysp" in message(lambda: raysp.connect(url, "token"))
    assert "https://" in message(lambda: raysp.connect(url.replace("http", "https"), "token"))


def test_a_certificate_that_nobody_signed(stranger, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    stranger.socket = context.wrap_socket(stranger.socket, server_side=True)
    url = f"https://127.0.0.1:{stranger.server_port}"
    told = message(lambda: raysp.connect(url, "token"))
    assert "certificate that is not trusted" in told
    assert "SSL_CERT_FILE" in told


def test_another_version_is_refused(started, monkeypatch):
    _, url, token, _ = started
    monkeypatch.setattr("raysp.remote.service.__version__", "999.0")
    assert message(lambda: raysp.connect(url, token)).startswith(f"raysp: '{raysp.__version__}' is the version of the service")


# ---- connections that are lost


def test_a_submission_whose_answer_was_lost_is_not_made_twice(started, remote, spec, proxy, no_pauses):
    lost = []

    def lose_the_first(request, forward):
        response = forward()
        if request.command == "POST" and request.path.startswith("/api/v1/runs") and not lost:
            lost.append(response.json()["runs"][0]["run_id"])
            request.cut()
        else:
            request.answer(response)

    before = {row["run_id"] for row in remote.runs()}
    with proxy(lose_the_first) as url, raysp.connect(url, started[2]) as there:
        submitted = there.submit(spec)
    assert [each.run_id for each in submitted] == lost
    assert {row["run_id"] for row in remote.runs()} - before == set(lost)


def test_a_service_that_is_being_restarted_is_asked_again(started, proxy, no_pauses):
    asked = itertools.count()

    def busy_at_first(request, forward):
        number = next(asked)
        request.answer(httpx.Response(503, text="restarting") if number < 2 else forward())

    with proxy(busy_at_first) as url, raysp.connect(url, started[2]) as there:
        assert there.status()["version"] == raysp.__version__
    assert next(asked) > 3


def test_a_service_that_does_not_come_back_is_given_up(started, proxy, no_pauses):
    def never(request, forward):
        request.answer(forward() if request.path.endswith("/service") else httpx.Response(502, text="bad gateway"))

    with proxy(never) as url, raysp.connect(url, started[2]) as there:
        assert "status 502" in message(lambda: there._transport.ask("GET", "/runs", patience=0.05))


def test_a_stream_that_is_cut_is_taken_up_where_it_ended(started, remote, slow, proxy, no_pauses):
    last, run_ids = [], []

    def cut_each(request, forward):
        """Streams are cut after the first event; what a client asks for next says where it was."""
        if not request.path.endswith("/events"):
            request.answer(forward())
            return
        last.append(int(request.headers["last-event-id"]))
        if len(last) == 3:
            remote.cancel(run_ids[0])
        headers = {name: request.headers[name] for name in ("authorization", "accept", "last-event-id")}
        with httpx.stream("GET", started[1] + request.path, headers=headers, timeout=60) as response:
            request.send_response(200)
            request.send_header("content-type", "text/event-stream")
            request.end_headers()
            for line in response.iter_lines():
                request.wfile.write(f"{line}\n".encode())
                request.wfile.flush()
                if line.startswith("data:"):
                    request.wfile.write(b"\n")
                    break
        request.cut()

    with proxy(cut_each) as url, raysp.connect(url, started[2]) as there:
        run_ids.append(there.submit(slow)[0].run_id)
        states = list(there.follow(run_ids))
    assert states[-1].status == "cancelled"
    assert len({state.version for state in states}) == len(states)
    assert len(last) >= 3
    assert last == sorted(last)


@pytest.mark.usefixtures("no_pauses")
def test_where_streams_do_not_pass_the_service_is_asked_again_and_again(started, remote, slow, proxy, monkeypatch):
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    held, ended, run_ids, looks = [], threading.Event(), [], itertools.count(1)

    def hold_streams(request, forward):
        if request.path.endswith("/events"):
            held.append(request.path)
            ended.wait(60)
            request.cut()
            return
        if run_ids and next(looks) == 5:
            remote.cancel(run_ids[0])
        request.answer(forward())

    with proxy(hold_streams) as url, raysp.connect(url, started[2]) as there:
        run_ids.append(there.submit(slow)[0].run_id)
        states = list(there.follow(run_ids))
        ended.set()
    assert states[-1].status == "cancelled"
    assert len(held) == 1


def test_several_runs_are_followed_together(remote, spec):
    ids = [remote.submit(spec.model_copy(update={"seed": seed}))[0].run_id for seed in (11, 12)]
    states = list(remote.follow(ids))
    assert {state.run_id for state in states if state.status == "done"} == set(ids)


def test_a_state_is_read_as_it_was_told():
    row = {
        "run_id": "a",
        "status": "running",
        "priority": 7,
        "version": 3,
        "progress": {"run_id": "a", "phase": "explore", "done": 2, "warnings": ["x"], "new": 1},
        "new": 2,
    }
    assert following.state_of(row) == RunState("a", None, "running", "running", 7, progress=Progress("a", "explore", 2, warnings=("x",)), version=3)
