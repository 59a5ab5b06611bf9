"""One thread follows the scheduler for all who watch."""

import asyncio
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from waiting import until

from raysp.errors import UserError
from raysp.runs.state import RunState, ServiceStatus
from raysp.web.tail import Tail

QUEUED = RunState("run-1", None, "queued", "running", version=1)


class Scripted:
    """What the tail asks for, as a scheduler would answer it: changes are put into a queue by the test."""

    def __init__(self):
        self.told = queue.Queue()
        self.asked = []

    def changes(self, since, timeout):
        self.asked.append(since)
        try:
            found = self.told.get(timeout=0.05)
        except queue.Empty:
            return []
        if isinstance(found, Exception):
            raise found
        return found

    def status(self):
        return ServiceStatus("1", runs={"queued": 1})


def test_states_are_followed_and_an_older_one_does_not_replace_a_newer_one():
    desk = Scripted()
    tail = Tail(desk)
    tail.start()
    desk.told.put([QUEUED])
    until("the run is known", lambda: tail.state("run-1") == QUEUED, 10)
    first = tail.changed("run-1")
    tail.note([replace(QUEUED, status="running", version=5)])
    tail.note([replace(QUEUED, status="queued", version=4)])
    assert tail.state("run-1").status == "running"
    assert tail.changed("run-1") > first
    moment = tail.changed("run-1")
    tail.note([replace(QUEUED, status="running", version=6)])  # progress changes nothing that the store would show
    assert tail.changed("run-1") == moment
    until("the newest version is asked about", lambda: desk.asked[-1] == 6, 10)
    assert tail.status.runs == {"queued": 1}
    tail.close()


def test_a_scheduler_that_does_not_answer_is_asked_again(monkeypatch):
    monkeypatch.setattr("raysp.web.tail.AGAIN_SECONDS", 0.05)
    desk = Scripted()
    tail = Tail(desk)
    tail.start()
    until("it answers", lambda: tail.answers, 10)
    monkeypatch.setattr(desk, "changes", lambda *_: (_ for _ in ()).throw(UserError("cluster", None, "does not answer", "wait")))
    until("it is known that it does not", lambda: not tail.answers, 10)
    monkeypatch.undo()
    desk.told.put([QUEUED])
    until("it answers again", lambda: tail.answers and tail.state("run-1") is not None, 10)
    tail.close()


def test_whoever_listens_is_woken_up_and_those_who_have_gone_are_forgotten():
    async def listened():
        tail = Tail(Scripted())
        async with tail.listening() as listener:
            asyncio.get_running_loop().call_later(0.05, tail.note, [QUEUED])
            await listener.wait(30)
            assert tail.newer(0) == [QUEUED]
            assert tail.newer(1) == []
            await listener.wait(0.01)  # nothing more has happened
        tail.note([replace(QUEUED, version=2)])
        return len(tail._listeners)

    with ThreadPoolExecutor(1) as elsewhere:  # Playwright has a loop in this thread once a test has opened a page
        assert elsewhere.submit(asyncio.run, listened()).result() == 0
