"""The web end lives and dies by itself: it reads without the scheduler, comes back when it is killed, and says so in one line if it cannot listen."""

import contextlib
import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import ray
from command_line import process
from homes import with_models
from waiting import until

from raysp.runtime.service import connecting
from raysp.runtime.web_end import WEB_PORT


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = with_models(tmp_path_factory.mktemp("web_end"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
        process("down", home=folder)


@pytest.fixture(scope="module")
def taken():
    """The usual port is somebody else's: if another test has it, this takes over as soon as that lets go."""
    over = threading.Event()
    with socket.socket() as other, ThreadPoolExecutor(1) as pool:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier web end may linger
        held = pool.submit(hold, other, over)
        until("somebody listens at the usual port", somebody_listens, 60)
        yield
        over.set()
        held.result()


def hold(other, over):
    while not over.is_set():
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", WEB_PORT))
            other.listen()
            return
        over.wait(0.02)


def somebody_listens():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", WEB_PORT)) == 0


@pytest.fixture(scope="module")
def started(home, taken):
    done = process("up", "--json", home=home)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def client(home, started):
    token = process("token", home=home).out.strip()
    assert (home / "web_token").stat().st_mode & 0o777 == 0o600
    with httpx.Client(base_url=f"{started['url']}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60) as found:
        yield found


def answers(client):
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False


def kill(started, name, group=None):
    with connecting(started["address"]):
        actor = ray.get_actor(name, "raysp").__ray_call__
        pid = ray.get((actor.options(concurrency_group=group) if group else actor).remote(lambda _: os.getpid()), timeout=60)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("field", ["port", "host"])
def test_where_it_cannot_listen_nothing_is_started(field, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = {"port": str(other.getsockname()[1]), "host": "192.0.2.1"}[field]  # the latter is nobody's: RFC 5737
        refused = process("up", f"--{field}", place, home=tmp_path)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert (refused.err.startswith(f"raysp: {field}: "), "cannot be listened at" in refused.err) == (True, True), refused.err
    assert not (tmp_path / "service.log").exists()


def test_where_the_usual_port_is_taken_another_one_is_used(started):
    host, port = started["url"].removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    assert int(port) != WEB_PORT


def test_a_running_service_keeps_its_web_end(home, started):
    again = json.loads(process("up", "--json", home=home).out)
    assert (again["url"], again["started"]) == (started["url"], False)
    late = process("up", "--port", "9999", home=home)
    assert (late.code, late.err.startswith("raysp: port: 9999 is read when a service starts")) == (2, True)


def test_a_web_end_that_is_killed_comes_back_at_the_same_address_and_with_the_same_sessions(started, client):
    until("it answers", lambda: answers(client), 60)
    login = httpx.post(f"{started['url']}/login", data={"token": client.headers["authorization"].split()[1]})
    kill(started, "raysp:web")
    until("it answers again", lambda: answers(client), 60)
    assert httpx.get(f"{started['url']}/api/v1/runs", cookies=dict(login.cookies)).status_code == 200


def test_what_is_stored_can_be_read_while_the_scheduler_is_gone(started, client):
    until("it answers", lambda: answers(client), 60)
    kill(started, "raysp:scheduler", "clients")
    assert client.get("/runs").status_code == 200
    assert client.get("/service").status_code == 200
    until("the scheduler is back", lambda: answers(client), 60)


def test_a_token_that_is_too_short_is_refused(home):
    refused = process("token", home=home, RAYSP_TOKEN="secret")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "RAYSP_TOKEN" in refused.err
    assert "secret" not in refused.err
