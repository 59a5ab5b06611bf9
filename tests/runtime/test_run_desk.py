"""What clients want of runs, on real stores: no store keeps those of another waiting, and runs are removed without harm to what is under way."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

import raysp
from raysp.lenses import build_game
from raysp.runs import state as run_states
from raysp.runs.state import RunRequest
from raysp.runtime.admission import Admission
from raysp.runtime.executions import Executions
from raysp.runtime.order_desk import OrderDesk
from raysp.runtime.recovery import Recovery
from raysp.runtime.run_desk import RunDesk
from raysp.runtime.run_table import RunTable
from raysp.runtime.runner_pool import RunnerPool
from raysp.runtime.stores import Stores
from raysp.specs.policy import EVERYTHING
from raysp.spectral.walsh import all_masks
from raysp.store import Store, connection

WRITER = """
import sys
from raysp.store import Store
with Store.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.readline()
"""
LENS = raysp.FunctionLens(lambda masks: 1.0 * masks[:, 0] * masks[:, 1], n=3)
INFO = build_game(LENS).info


class Desk(RunDesk):
    """All that a scheduler has, but for its evaluators and runners."""

    def __init__(self):
        self.lock, self.stores, self.table = threading.RLock(), Stores(), RunTable()
        wake = threading.Event()
        self.orders = OrderDesk(self.stores)
        executions = Executions(self.table, self.stores, self.orders, RunnerPool(lambda: None), Admission(EVERYTHING, None).check, lock=self.lock, wake=wake)
        recovery = Recovery(self.stores, executions.adopt, executions.resume)
        super().__init__(self.table, self.stores, self.orders, executions, recovery, lock=self.lock, wake=wake)


@pytest.fixture
def desk(home):
    made = Desk()
    yield made
    made.stores.close_unused(())


def request(path, run_id):
    return RunRequest(raysp.RunSpec(lens=LENS, explorer=raysp.Exhaustive(), store=str(path)), run_id)


def ended(path, *run_ids):
    """A store with runs that have ended, which asked the same."""
    with Store.open(path) as store:
        for run_id in run_ids:
            store.start_run(run_id, json.dumps({"lens": {}}), INFO, lens="function", explorer="exhaustive", seed=0)
            store.add_evaluations(run_id, "explore", all_masks(3), np.zeros(8))
            store.set_status(run_id, "done")
    return path


def test_a_run_for_a_store_that_another_process_has_keeps_no_other_client_waiting(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "WAIT_SECONDS", 120.0)
    trying, open_store = threading.Event(), Store.open

    def seen(path):
        if path == locked:
            trying.set()
        return open_store(path)

    locked, free = ended(tmp_path / "locked.duckdb", "before"), tmp_path / "free.duckdb"
    monkeypatch.setattr(Store, "open", seen)
    with subprocess.Popen([sys.executable, "-c", WRITER, locked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        waits = threading.Thread(target=desk.submit, args=([request(locked, "waits")],), daemon=True)
        waits.start()
        assert trying.wait(60)
        others = threading.Thread(target=lambda: (desk.submit([request(free, "goes")]), desk.steer("goes", "paused")), daemon=True)
        others.start()
        others.join(60)
        assert desk.state("goes").status == "paused"
        assert waits.is_alive()
        writer.communicate("\n")
    waits.join(60)
    assert desk.state("waits").status == "queued"


def test_nothing_is_written_if_one_of_the_stores_cannot_be_opened(desk, tmp_path):
    damaged, good = tmp_path / "damaged.duckdb", tmp_path / "good.duckdb"
    damaged.write_bytes(b"no store" * 10_000)
    with pytest.raises(raysp.UserError, match="is damaged"):
        desk.submit([request(good, "one"), request(damaged, "other")])
    assert not desk.table.handles
    with desk.stores.using(good) as store:
        assert not run_states.states(store)


def test_whoever_wants_a_store_that_is_being_closed_waits_for_that(desk, tmp_path):
    path = tmp_path / "s.duckdb"
    desk.stores.open(path)
    assert not desk.stores.take([tmp_path / "other.duckdb"])
    with desk.stores.using(path):
        assert not desk.stores.take([path])
    leaving, opened = desk.stores.take([path]), threading.Event()

    def want():
        with desk.stores.using(path) as store:
            run_states.submit(store, [request(path, "next")])
            opened.set()

    wants = threading.Thread(target=want, daemon=True)
    wants.start()
    assert not opened.wait(0.3)
    desk.stores.close(leaving)
    assert opened.wait(60)
    wants.join(60)
    with desk.stores.reading(path) as store:
        assert [state.run_id for state in run_states.states(store)] == ["next"]


def test_a_run_is_removed_from_a_store_that_others_use_and_is_known_no_more(desk, tmp_path):
    path = ended(tmp_path / "s.duckdb", "first", "second")
    desk.submit([request(path, "third")])
    assert desk.find(path, ["first", "second", "first"]) == ["first", "second"]
    tried = desk.remove(path, ["first"], unused=False, dry_run=True)
    assert (tried.removal.evaluations, tried.removal.kept, tried.sizes) == (0, 8, None)
    for run_id, problem in (("third", "has not ended"), ("nobody", "is not in the store")):
        with pytest.raises(raysp.UserError, match=f"^run: '{run_id}' {problem}"):
            desk.remove(path, ["first", run_id], unused=False, dry_run=False)
    removed = desk.remove(path, ["first"], unused=False, dry_run=False)
    assert (removed.removal, removed.sizes) == (tried.removal, None)  # the third run is to be stored there
    with pytest.raises(raysp.UserError, match="'first' is not known"):
        desk.steer("first", "running")
    desk.steer("third", "cancelled")
    assert desk.remove(path, ["third", "second"], unused=False, dry_run=False).removal.evaluations == 8
    assert not desk.table.handles
    with pytest.raises(raysp.UserError, match="'third' is not known"):
        desk.state("third")


def test_a_store_that_nobody_uses_is_written_anew(desk, tmp_path):
    path = ended(tmp_path / "s.duckdb", "first", "second")
    before, after = desk.remove(path, ["first"], unused=False, dry_run=False).sizes
    assert before > after == path.stat().st_size
    assert not desk.stores.paths()
    with Store.read(path) as store:
        assert store.runs()["run_id"].to_pylist() == ["second"]


def test_a_run_that_a_command_acts_on_is_not_removed(desk, tmp_path):
    path = ended(tmp_path / "s.duckdb", "acted")
    desk.orders.open("acted:1", "", path, "acted", priority=5, limit=None, is_run=False)
    with pytest.raises(raysp.UserError, match=r"^run: 'acted' is in use by a command"):
        desk.remove(path, ["acted"], unused=False, dry_run=False)
    desk.orders.close("acted:1")
    assert desk.remove(path, ["acted"], unused=False, dry_run=False).removal.evaluations == 8
