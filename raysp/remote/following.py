"""Runs followed over server-sent events: a lost connection is taken up where it ended, and where streams do not pass, the service is asked again and again."""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import httpx

from raysp.remote.transport import Transport
from raysp.runs.progress import progress_of
from raysp.runs.state import RunState

STREAM = "text/event-stream"
#: A stream says at least every 15 seconds that it is there; one that is silent for longer is lost, or held back on its way.
SILENCE_SECONDS = 25.0
#: How often the service is asked where streams do not pass, and the pause before a stream is opened again.
POLL_SECONDS, AGAIN_SECONDS = 1.0, 0.5

Look = Callable[[Sequence[str]], Iterable[RunState]]
"""Where runs stand, by their ids."""


class Follower:
    """The states of some runs until all have ended or are paused. `look` asks for them once, and raises UserError if the service is gone for good."""

    def __init__(self, transport: Transport, look: Look, run_ids: Sequence[str]) -> None:
        self._transport, self._look, self._ids = transport, look, list(dict.fromkeys(run_ids))
        self._seen: dict[str, RunState] = {}
        self._open = set(self._ids)
        self._last = -1
        self._streams = True

    def states(self) -> Iterator[RunState]:
        """The states now, and again whenever they change."""
        while True:
            yield from self._news(self._look([run_id for run_id in self._ids if run_id in self._open]))
            if not self._open:
                return
            if self._streams:
                yield from self._streamed()
            else:
                time.sleep(POLL_SECONDS)

    def _news(self, states: Iterable[RunState]) -> Generator[RunState]:
        """Those of these states that are new, and are about the runs that are followed."""
        for state in states:
            self._last = max(self._last, state.version)
            known = self._seen.get(state.run_id)
            if state.run_id not in self._open or (known is not None and (state.version < known.version or replace(state, version=known.version) == known)):
                continue
            self._seen[state.run_id] = state
            if state.ended or state.status == "paused":
                self._open.discard(state.run_id)
            yield state

    def _streamed(self) -> Generator[RunState]:
        """What one connection tells, until it is lost or there is nothing more to tell."""
        path = f"/runs/{next(iter(self._open))}/events" if len(self._open) == 1 else "/events"
        passes = False
        try:
            with self._transport.stream(path, {"accept": STREAM, "last-event-id": str(self._last)}, SILENCE_SECONDS) as response:
                if not response.is_success:  # the next look says what is wrong
                    time.sleep(AGAIN_SECONDS)
                    return
                if not response.headers.get("content-type", "").startswith(STREAM):
                    self._streams = False
                    return
                for states in _messages(response.iter_lines()):
                    passes = True
                    yield from self._news(states)
                    if not self._open:
                        return
        except httpx.ReadTimeout:
            self._streams = passes  # one that never said anything is held back by something on its way
        except httpx.TransportError:
            time.sleep(AGAIN_SECONDS)


def _messages(lines: Iterable[str]) -> Generator[list[RunState]]:
    """The states that a stream tells, with an empty list for every line that only says that it is there."""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield [state_of(json.loads("\n".join(data)))]
            data = []
        else:
            yield []


def state_of(row: Mapping[str, Any]) -> RunState:
    """A state as a service tells it, from one of its events or from the row of a run; what this version does not know is left out."""
    known: dict[str, Any] = {each.name: row[each.name] for each in fields(RunState) if row.get(each.name) is not None}
    known["name"], known["desired"] = row.get("name"), row.get("desired") or "running"
    progress = row.get("progress")
    known["progress"] = progress_of(progress) if progress else None
    return RunState(**known)
