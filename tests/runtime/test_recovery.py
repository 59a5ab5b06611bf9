"""A scheduler that comes back goes on with the runs of every store that it can open, and with those of the others once it can."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest

import raysp
from raysp.runs import state as run_states
from raysp.runs.state import RunRequest
from raysp.runtime.admission import Admission
from raysp.runtime.executions import Executions
from raysp.runtime.order_desk import OrderDesk
from raysp.runtime.recovery import Recovery
from raysp.runtime.run_table import RunTable
from raysp.runtime.runner_pool import RunnerPool
from raysp.runtime.stores import Stores, unknown
from raysp.specs.policy import EVERYTHING, Policy
from raysp.store import connection

WRITER = """
import sys
from raysp.store import Store
with Store.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.readline()
"""


def with_run(path, run_id, **options):
    """A store with a submitted run."""
    spec = raysp.RunSpec(lens=raysp.FeatureLens(prompt="It never fails", **options), explorer=raysp.Exhaustive(), store=str(path))
    with raysp.Store.open(path) as store:
        run_states.submit(store, [RunRequest(spec, run_id)])
    return path


def left_open(home):
    return json.loads((home / "scheduler.json").read_text())["open"]


def wait_until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def recovery(home, tmp_path):
    """Stores that a scheduler left open, what knows their runs now, and what recovers them."""

    begun = []

    def begin(*paths, policy=EVERYTHING):
        (home / "scheduler.json").write_text(json.dumps({"open": list(map(str, paths)), "latest": []}))
        stores, table = Stores(), RunTable()
        desk, runners = OrderDesk(stores), RunnerPool(lambda: None)
        executions = Executions(table, stores, desk, runners, Admission(policy, paths[0]).check, lock=threading.RLock(), wake=threading.Event())
        found = Recovery(stores, executions.adopt, executions.resume)
        found.begin({})
        begun.append((stores, table, found, executions))
        return begun[0]

    yield begin
    for stores, _, found, _ in begun:
        found.stop()
        stores.close_unused(set())


def test_a_store_that_cannot_be_opened_keeps_no_other_from_going_on_and_is_tried_until_it_can(recovery, home, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.1)
    caplog.set_level(logging.WARNING, "raysp.runtime.recovery")
    damaged, folder, gone = tmp_path / "damaged.duckdb", tmp_path / "folder.duckdb", tmp_path / "gone" / "gone.duckdb"
    damaged.write_bytes(b"no store" * 10_000)
    folder.mkdir()
    locked, good = with_run(tmp_path / "locked.duckdb", "waiting"), with_run(tmp_path / "good.duckdb", "ready")
    with subprocess.Popen([sys.executable, "-c", WRITER, locked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        stores, table, found, _ = recovery(damaged, folder, gone, locked, good)
        assert list(table.handles) == ["ready"]
        assert set(found.waiting()) == {damaged, folder, gone, locked}
        assert {str(path) for path in (damaged, folder, gone, locked)} <= set(left_open(home))
        told = str(unknown("waiting", found.waiting()))
        assert f"process {writer.pid} has it open" in told
        assert "\n" not in told
        writer.communicate("\n")
    wait_until(lambda: set(table.handles) == {"ready", "waiting"})
    assert table.handles["waiting"].state.status == "queued"
    assert table.handles["waiting"].store == locked

    def what_is_left_open():
        stores.close_unused(set())  # recovery may still have the last store in use for a moment
        return set(left_open(home))

    wait_until(lambda: what_is_left_open() == {str(damaged), str(folder), str(gone)})  # what they hold is not forgotten
    reasons = [record.reason for record in caplog.records]
    assert len(reasons) == len(set(reasons)) == 4  # however often they were tried
    assert not gone.parent.exists()


def test_a_store_whose_file_system_comes_back_goes_on(recovery, tmp_path):
    with_run(tmp_path / "s.duckdb", "afterwards")
    away, path = tmp_path / "away", tmp_path / "mounted" / "s.duckdb"
    (tmp_path / "s.duckdb").rename(away)
    _, table, found, _ = recovery(path)
    assert "does not exist" in found.waiting()[path]
    path.parent.mkdir()
    away.rename(path)
    wait_until(lambda: "afterwards" in table.handles)
    wait_until(lambda: not found.waiting())


@pytest.mark.parametrize("desired", ["cancelled", "paused"])
def test_a_run_that_does_not_notice_that_it_should_stop_is_ended(recovery, tmp_path, monkeypatch, desired):
    """As one that fits something for long."""
    monkeypatch.setattr("raysp.runtime.executions.STOPPING_SECONDS", 0.05)
    path = with_run(tmp_path / "s.duckdb", "fits")
    stores, table, _, executions = recovery(path)
    wait_until(lambda: "fits" in table.handles)
    handle = table.handles["fits"]
    executions.advance(handle, "running")
    handle.runner, handle.incarnation = "raysp:runner:0", "one"
    executions.end_overdue()
    time.sleep(0.1)
    executions.end_overdue()
    assert handle.active  # nobody told it to stop
    table.changed(handle, run_states.steer(stores.open(path), "fits", desired))
    executions.end_overdue()
    assert handle.active  # it was told only now
    time.sleep(0.1)
    executions.end_overdue()
    assert not handle.active
    assert handle.state.status == desired
    assert [state.status for state in run_states.states(stores.open(path), ["fits"])] == [desired]


def test_a_run_that_the_policy_does_not_allow_any_more_fails_with_what_it_says(recovery, tmp_path):
    path = with_run(tmp_path / "own.duckdb", "refused", model="/somewhere/model")
    _, table, _, executions = recovery(path, policy=Policy())
    executions.begin_queued()
    state = table.handles["refused"].state
    assert (state.status, state.position) == ("failed", None)
    assert state.error.startswith("model: '/somewhere/model' names a folder of the service's machines; ")
