"""One thread follows the scheduler's table of runs for all who watch."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

import raysp
from raysp.errors import UserError
from raysp.runs.progress import Progress
from raysp.runs.state import RunRequest, RunState, ServiceStatus
from raysp.runtime.run_table import RunHandle, RunTable
from raysp.web import tail as module
from raysp.web.looking import with_state
from raysp.web.tail import Tail


class Scheduling:
    """The table of a scheduler, asked in this process; while it is `away`, as by a link to one that has died."""

    def __init__(self):
        self.table, self.away = RunTable(), False

    def add(self, run_id):
        spec = raysp.RunSpec(lens=raysp.FeatureLens(prompt="x"))
        handle = RunHandle(RunRequest(spec, run_id), Path("s.duckdb"), RunState(run_id, None, "queued", "running"))
        self.table.add(handle)
        return handle

    def become(self, handle, status):
        self.table.changed(handle, replace(handle.state, status=status))

    def changes(self, since, timeout):
        if self.away:
            raise UserError("cluster", None, "its scheduler does not answer", "try again in a few seconds")
        return self.table.changes(since, timeout)

    def status(self):
        return ServiceStatus("1", runs={"queued": len(self.table.handles)})


@pytest.fixture
def scheduling():
    return Scheduling()


@pytest.fixture
def tail(scheduling, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    found = Tail(scheduling)
    found.start()
    yield found
    found.close()


def test_the_newest_states_are_known_and_when_a_status_changed(scheduling, tail):
    handle = scheduling.add("run-1")
    until("the run is known", lambda: tail.state("run-1") == handle.state, 10)
    queued = tail.changed("run-1")
    scheduling.become(handle, "running")
    until("it runs", lambda: tail.state("run-1").status == "running", 10)
    running = tail.changed("run-1")
    assert running > queued
    scheduling.table.progressed(handle, Progress("run-1", "explore", 5, 10))
    until("its progress is known", lambda: tail.state("run-1").progress is not None, 10)
    assert tail.changed("run-1") == running  # the store would show nothing new
    assert tail.newer(0, "run-1") == [handle.state]
    assert tail.newer(handle.state.version, "run-1") == []
    until("the service is known", lambda: tail.status.runs == {"queued": 1}, 10)


def test_an_older_state_does_not_replace_a_newer_one(scheduling, tail):
    handle = scheduling.add("run-1")
    before = handle.state
    scheduling.become(handle, "running")
    until("it runs", lambda: tail.state("run-1") == handle.state, 10)
    tail.note([before])
    assert tail.state("run-1").status == "running"


def test_a_scheduler_that_does_not_answer_is_asked_again(scheduling, tail):
    until("it answers", lambda: tail.answers, 10)
    scheduling.away = True
    until("it is known that it does not", lambda: not tail.answers, 10)
    scheduling.add("run-1")
    scheduling.away = False
    until("it answers again", lambda: tail.answers and tail.state("run-1") is not None, 10)


def test_runs_that_ended_long_ago_are_forgotten_and_others_are_not(scheduling, tail, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 3)
    handles = [scheduling.add(f"run-{number}") for number in range(6)]
    for handle in handles[:5]:
        scheduling.become(handle, "running")
        scheduling.become(handle, "done")
    until("the last is known", lambda: tail.state("run-4") is not None and tail.state("run-4").status == "done", 10)
    until("the first are forgotten", lambda: len(tail.states()) == 3, 10)
    assert {state.run_id for state in tail.states()} == {"run-3", "run-4", "run-5"}


def test_whoever_listens_is_woken_up_and_those_who_have_gone_are_forgotten(scheduling, tail):
    async def listened():
        async with tail.listening() as listener:
            asyncio.get_running_loop().call_later(0.05, scheduling.add, "run-1")
            await listener.wait(30)
            assert [state.run_id for state in tail.newer(0)] == ["run-1"]
            await listener.wait(0.01)  # nothing more has happened
        return len(tail._listeners)

    with ThreadPoolExecutor(1) as elsewhere:  # Playwright has a loop in this thread once a test has opened a page
        assert elsewhere.submit(asyncio.run, listened()).result() == 0


def test_a_run_has_the_status_that_the_tail_knows_in_every_answer(scheduling, tail):
    handle = scheduling.add("run-1")
    until("the run is known", lambda: tail.state("run-1") == handle.state, 10)
    row = {"run_id": "run-1", "status": "done", "verdict": "reliable"}  # as the store has it already
    told = with_state(row, tail.state("run-1"))
    assert (told["status"], told["state"]["status"], told["verdict"]) == ("queued", "queued", "reliable")
    assert with_state(row, None) == {**row, "state": None}
