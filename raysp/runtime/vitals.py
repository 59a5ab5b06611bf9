"""Whether evaluators live: each is asked for a sign of life, and one whose call was lost is doubtful until it answers or is known to be dead."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from ray.exceptions import ActorDiedError, RayError

from raysp.runtime.calls import first_line
from raysp.runtime.evaluator import Pulse
from raysp.runtime.pool import Member, Pool

#: How often evaluators are asked for a sign of life.
PULSE_SECONDS = 2.0
#: An evaluator that has not answered for this long is given no more work until it does.
SILENT_SECONDS = 20.0

log = logging.getLogger(__name__)


class Vitals:
    """Signs of life of the evaluators of a pool. Has no thread: answers arrive through `events`, and are acted upon by whoever takes them from there.

    `alive` is told of each sign of life. `lost` is told of an evaluator whose calls are lost, with what its death looked like, or None if it lives.
    """

    def __init__(
        self, pool: Pool, events: SimpleQueue[Callable[[], None]], alive: Callable[[Member, Pulse], None], lost: Callable[[Member, str | None], None]
    ) -> None:
        self._pool, self._events, self._alive, self._lost = pool, events, alive, lost

    def check(self) -> None:
        """Ask those that have not been asked for a while, and give no more work to those that do not answer."""
        now = time.monotonic()
        for member in list(self._pool.members.values()):
            if member.pulse_sent is None:
                if now >= member.pulse_due:
                    self._listen(member)
            elif member.state == "ready" and now - member.pulse_sent > SILENT_SECONDS:
                member.state = "silent"
                log.warning("evaluator silent", extra={"evaluator": member.name, "node": member.node})

    def doubt(self, member: Member) -> None:
        """Note that a call was lost: whether its evaluator is dead is seen when it is asked for a sign of life."""
        if member.state in ("ready", "silent"):
            member.state = "doubtful"
            log.warning("evaluator doubtful", extra={"evaluator": member.name, "node": member.node})
            self._listen(member)

    def _listen(self, member: Member) -> None:
        """Ask an evaluator for a sign of life."""
        member.pulse_sent = time.monotonic()
        member.pulse_due = member.pulse_sent + (PULSE_SECONDS if member.state == "ready" else 0.0)
        try:
            answer: Future[Any] = member.actor.pulse.remote().future()
        except RayError:
            member.pulse_sent = None
            return
        answer.add_done_callback(lambda done: self._events.put(partial(self._heard, member, done)))

    def _heard(self, member: Member, answer: "Future[Pulse]") -> None:
        member.pulse_sent = None
        if member.name not in self._pool.members:
            return
        error = answer.exception()
        if isinstance(error, ActorDiedError):
            self._lost(member, first_line(error))
        elif error is not None:
            member.state = "doubtful"
        else:
            if member.state == "doubtful":
                self._lost(member, None)
            self._alive(member, answer.result())
