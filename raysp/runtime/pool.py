"""The evaluators of a cluster: started where there is room, adopted from a scheduler that died, and ended when they have been idle for long.

A pool calls nobody back and has no thread: `raysp.runtime.dispatch` asks it to grow and to shrink, and tells it of deaths.
"""

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.autoscaler.sdk import request_resources

from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.evaluator import Pulse, evaluator_actor
from raysp.runtime.shape import Shape

EVALUATOR = "raysp:evaluator:"
#: An evaluator without work for this long ends, so that its memory is free and Ray's autoscaler can take its node away.
IDLE_SECONDS = float(os.environ.get("RAYSP_IDLE_SECONDS", "600"))
#: How long the next start waits after evaluators died one after the other before they had started: this often doubled.
BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.5, 30.0
#: Only a ready evaluator is given work. It is doubtful after a call to it was lost, until it answers or is known to be dead; silent, if it does not answer.
MemberState = Literal["starting", "ready", "doubtful", "silent"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """One evaluator as the pool knows it. `calls` are those it was sent and that have not returned, the oldest first.

    `fed_later`: it has enough to do, and is given more a little before that ends.
    """

    name: str
    actor: Any
    state: MemberState = "starting"
    node: str = ""
    resident: frozenset[str] = frozenset()
    calls: list[Any] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    pulse_sent: float | None = None
    pulse_due: float = 0.0
    proven: bool = False
    fed_later: bool = False

    @property
    def shown(self) -> str:
        """Its state in words: starting, idle, busy, or lost."""
        return {"starting": "starting", "ready": "busy" if self.calls else "idle"}.get(self.state, "lost")


class Pool:
    """Evaluators of one shape. Any of them serves any lens; models stay resident in them from run to run. `lost` counts those that died."""

    def __init__(self) -> None:
        self.shape: Shape | None = None
        self.members: dict[str, Member] = {}
        self._number = 0
        self.lost = 0
        self._deaths = 0
        self._not_before = 0.0
        self._asked_for = 0

    def adopt(self) -> None:
        """Take over the evaluators of an earlier scheduler. They are ready when they have answered."""
        for name in named(EVALUATOR):
            with contextlib.suppress(ValueError):  # one that has ended in the meantime
                self.members[name] = Member(name, ray.get_actor(name, NAMESPACE))
                self._number = max(self._number, int(name.removeprefix(EVALUATOR)) + 1)
                log.info("evaluator adopted", extra={"evaluator": name})

    def take(self, shape: Shape) -> None:
        """Have evaluators of this shape, and end those of another."""
        if self.shape is not None and self.shape.key != shape.key:
            for member in list(self.members.values()):
                self.end(member, "others of another shape are wanted")
        self.shape = shape

    def resize(self, wanted: int) -> None:
        """Start evaluators until there are this many, as far as the nodes hold them, and at least one, which waits for a node. End those that wait in vain."""
        if self.shape is None:
            return
        room = self.shape.fitting()
        self._ask_autoscaler(wanted, room)
        wanted = max(1, min(wanted, room))
        if time.monotonic() >= self._not_before:
            for _ in range(wanted - len(self.members)):
                self._start(self.shape)
        waiting = [member for member in self.members.values() if member.state == "starting"]
        for member in waiting[len(waiting) - max(0, min(len(waiting), len(self.members) - max(1, room))) :]:
            self.end(member, "no node has room for it")

    def _start(self, shape: Shape) -> None:
        name, self._number = f"{EVALUATOR}{self._number}", self._number + 1
        options = evaluator_actor.options(
            name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", scheduling_strategy="SPREAD", **dict(shape.resources)
        )
        self.members[name] = Member(name, options.remote(name, shape.threads, shape))
        log.info("evaluator started", extra={"evaluator": name})

    def _ask_autoscaler(self, wanted: int, room: int) -> None:
        """Tell Ray's autoscaler, if there is one, how many evaluators there is work for."""
        needed = 1 << (wanted - 1).bit_length() if wanted > room else 0  # in powers of two, so that it does not change with every batch
        if needed == self._asked_for or self.shape is None:
            return
        bundle = {{"num_cpus": "CPU", "num_gpus": "GPU"}[name]: amount for name, amount in self.shape.resources}
        with contextlib.suppress(RuntimeError):
            request_resources(bundles=[bundle] * needed)
            self._asked_for = needed

    def answered(self, member: Member, pulse: Pulse) -> None:
        """Note that an evaluator lives. One that was adopted and has another shape ends."""
        if member.state != "ready":
            log.info("evaluator ready", extra={"evaluator": member.name, "node": pulse.node})
        if member.state == "starting":
            member.since = time.monotonic()
            member.proven, self._deaths = True, 0
        member.state, member.node, member.resident = "ready", pulse.node, frozenset(pulse.resident)
        if self.shape is None:
            self.shape = pulse.shape
        if pulse.shape is None or self.shape is None or pulse.shape.key != self.shape.key:
            self.end(member, "it has another shape than the others")

    def worked(self, member: Member) -> None:
        """Note that an evaluator has done something."""
        member.since = time.monotonic()

    def died(self, member: Member, reason: str) -> None:
        """Forget an evaluator that is dead. The next one waits a while if it had not even started."""
        log.warning("evaluator lost", extra={"evaluator": member.name, "node": member.node, "reason": reason})
        self.members.pop(member.name, None)
        self.lost += 1
        if not member.proven:
            self._deaths += 1
            self._not_before = time.monotonic() + min(BACKOFF_SECONDS * 2 ** min(self._deaths, 10), MOST_BACKOFF_SECONDS)

    def rest(self, keep: int = 0) -> None:
        """End the evaluators that have had nothing to do for `IDLE_SECONDS`, but for some, and ask for no nodes if nothing is to be done."""
        now = time.monotonic()
        idle = [member for member in self.members.values() if member.state == "ready" and not member.calls and now - member.since > IDLE_SECONDS]
        for member in idle[: max(0, len(self.members) - keep)]:
            self.end(member, "it had nothing to do")
        if not keep and self._asked_for:
            self._ask_autoscaler(0, 0)

    def end(self, member: Member, reason: str) -> None:
        """End an evaluator and give back what it took."""
        log.info("evaluator ended", extra={"evaluator": member.name, "node": member.node, "reason": reason})
        self.members.pop(member.name, None)
        ray.kill(member.actor, no_restart=True)


def named(prefix: str) -> list[str]:
    """The names of the detached actors of this service that begin with a prefix."""
    actors: Any = ray.util.list_named_actors(all_namespaces=True)
    return sorted(actor["name"] for actor in actors if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix))
