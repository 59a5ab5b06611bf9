"""Which cluster is joined, and addresses where none is: said in one line, at once."""

import http.server
import json
import socket
import threading

import pytest

from raysp.errors import UserError
from raysp.runtime import address
from raysp.runtime.address import PREFACE, answers, checked_address, store_is_here, wanted_address

#: What a gRPC server sends first: an empty frame of settings.
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture
def serving():
    """A function that starts a server which reads what a gRPC client begins with and answers with some bytes; HOST:PORT of it."""
    listeners = []

    def serve(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    assert connection.recv(len(PREFACE)) == PREFACE
                    connection.sendall(answer)

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("somewhere", r"is not an address; write HOST:PORT, such as 10\.0\.0\.5:6379$"),
        ("127.0.0.1:99999", "is not an address"),
        ("ray://127.0.0.1:10001", "is an address for Ray Client; on a node of the cluster write HOST:PORT of its head"),
        ("http://127.0.0.1:8265", "is the address of a dashboard; "),
        ("ftp://x:1", "is not an address"),
        ("auto", "finds no Ray on this machine"),
    ],
)
def test_an_address_that_cannot_be_joined_is_refused(named, problem, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(UserError, match=f"^RAY_ADDRESS: '{named}' {problem}"):
        wanted_address()


def test_a_port_where_nothing_listens_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", closed_port())
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: .* does not answer \(Connection refused\); start the cluster, unset RAY_ADDRESS, or pass --local$"):
        wanted_address()


def test_a_port_that_accepts_and_says_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(address, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(UserError, match=r"does not answer \(timed out\)"):
        checked_address(f"127.0.0.1:{listener.getsockname()[1]}", "RAY_ADDRESS", "")


def test_a_server_that_is_not_rays_is_refused():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing on stderr."""

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="is answered by something other than a Ray head node"):
            checked_address(f"127.0.0.1:{server.server_port}", "RAY_ADDRESS", "")
        server.shutdown()


def test_the_address_named_comes_before_the_service_and_that_before_a_ray_of_this_machine(serving, home, tmp_path, monkeypatch):
    named, served, started = serving(SETTINGS), serving(SETTINGS), serving(SETTINGS)
    assert wanted_address() is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(started)
    assert wanted_address() == started
    (home / "service.json").write_text(json.dumps({"address": served}))
    assert wanted_address() == served
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert wanted_address() == named
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert wanted_address() is None


def test_a_service_that_died_and_a_ray_that_was_killed_are_passed_over(home, tmp_path):
    (home / "service.json").write_text(json.dumps({"address": closed_port()}))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(closed_port())
    assert wanted_address() is None


def test_a_server_that_hangs_up_does_not_answer(serving):
    assert not answers(serving(b""))


ELSEWHERE = "203.0.113.7:6379"  # of a network for documentation: nobody's


@pytest.mark.parametrize(
    ("wanted", "served", "named", "here"),
    [
        (None, None, False, True),
        ("127.0.0.1:6379", None, False, True),
        ("auto", None, False, True),
        (ELSEWHERE, None, False, False),
        (ELSEWHERE, None, True, True),
        (None, ELSEWHERE, False, False),
        ("127.0.0.1:6379", ELSEWHERE, False, True),
    ],
)
def test_the_default_store_of_a_service_on_another_machine_is_not_here(home, monkeypatch, *, wanted, served, named, here):
    monkeypatch.delenv("RAYSP_STORE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if wanted:
        monkeypatch.setenv("RAY_ADDRESS", wanted)
    file = home / "raysp.duckdb"
    if served:
        (home / "service.json").write_text(json.dumps({"address": served, "store": str(file)}))
    assert not store_is_here(None)
    file.touch()
    assert store_is_here(str(file) if named else None) is here
