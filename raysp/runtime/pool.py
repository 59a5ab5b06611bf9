"""The evaluators of a cluster: started, watched, replaced when they die, and asked.

A call's fate is unknown once its evaluator is unavailable, so every call must be safe to repeat. Of the calls that wait for one evaluator it is
executing the oldest; only that one is held responsible when the evaluator dies.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.evaluator import OPTIONS, evaluator_actor
from raysp.runtime.pieces import ADVICE
from raysp.runtime.shape import PLACEMENT_SECONDS, Shape, unplaceable

EVALUATOR = "raysp:evaluator:"
#: Deaths of an evaluator that one question to it may survive.
ATTEMPTS = 4
POLL_SECONDS = 1.0
#: To fetch an answer that has been announced. It is small, and the process that holds it may be gone.
FETCH_SECONDS = 60.0

Cancelled = Callable[[], bool]


def never() -> bool:
    """Nothing is cancelled."""
    return False


@dataclass(eq=False)
class Call:
    """A call that an evaluator was sent. `to_blame` is set if the evaluator died while it executed this call, as far as can be known."""

    member: "Member"
    reference: Any
    sent: float = field(default_factory=time.monotonic)
    to_blame: bool = False


@dataclass(eq=False)
class Member:
    """One evaluator; `calls` are those it was sent and that have not returned, the oldest first."""

    name: str
    actor: Any
    ping: Any
    pinged: float = field(default_factory=time.monotonic)
    ready: bool = False
    calls: list[Call] = field(default_factory=list)


class Pool:
    """The evaluators of a cluster. Any of them serves any lens; models stay resident in them from run to run. Threads may share a pool."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._lock = threading.RLock()
        self.members = [self._start(f"{EVALUATOR}{i}") for i in range(shape.count)]

    def _start(self, name: str) -> Member:
        actor = self._actor(name)
        return Member(name, actor, actor.ping.remote())

    def _actor(self, name: str) -> Any:
        options = evaluator_actor.options(
            name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", scheduling_strategy="SPREAD", **OPTIONS, **dict(self.shape.resources)
        )
        return options.remote(name, self.shape.threads)

    @property
    def ready(self) -> list[Member]:
        """Evaluators that have answered their ping. One whose ping failed is pinged again, and replaced if it will never come back."""
        with self._lock:
            for member in self.members:
                if not member.ready:
                    self._listen(member)
            return [member for member in self.members if member.ready]

    def _listen(self, member: Member) -> None:
        answered, _ = ray.wait([member.ping], timeout=0)
        if not answered:
            return
        try:
            ray.get(member.ping, timeout=FETCH_SECONDS)
            member.ready = True
        except RayError as error:
            if time.monotonic() - member.pinged < POLL_SECONDS:
                return
            if isinstance(error, ActorDiedError):  # killed on purpose: Ray restarts every other
                with contextlib.suppress(ValueError):  # its name is not free yet
                    member.actor = self._actor(member.name)
            self._ping(member)

    @staticmethod
    def _ping(member: Member) -> None:
        member.ready, member.ping, member.pinged = False, member.actor.ping.remote(), time.monotonic()

    def await_ready(self, cancelled: Cancelled = never) -> list[Member]:
        """The evaluators that are ready, waiting for the first. UserError if the cluster cannot place any, InterruptedRunError once cancelled."""
        deadline = time.monotonic() + PLACEMENT_SECONDS
        while not (members := self.ready):
            if cancelled():
                raise InterruptedRunError("the run was cancelled while it waited for an evaluator")
            if time.monotonic() > deadline:
                raise unplaceable(len(self.members))
            started, _ = ray.wait([member.ping for member in self.members], timeout=POLL_SECONDS)
            if started:
                time.sleep(POLL_SECONDS / 10)  # it may have failed, and is pinged again in a while
        return members

    def send(self, member: Member, method: str, *arguments: Any) -> Call:
        """Call a method of an evaluator. Raises PendingCallsLimitExceeded when too many calls wait for it."""
        with self._lock:
            call = Call(member, getattr(member.actor, method).remote(*arguments))
            member.calls.append(call)
            return call

    def fetch(self, call: Call) -> Any:
        """The answer of a call that has returned. Raises what the evaluator raised, and RayError if it was lost; `call.to_blame` is settled then."""
        try:
            return ray.get(call.reference, timeout=FETCH_SECONDS)
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError:
            self._settle(call)
            raise
        finally:
            self._forget(call)

    def abandon(self, calls: Sequence[Call]) -> None:
        """Cancel calls whose answers nobody waits for any more; those being executed run to their end."""
        for call in calls:
            with contextlib.suppress(RayError, ValueError):
                ray.cancel(call.reference)
            self._forget(call)

    def ask(self, method: str, *arguments: Any, cancelled: Cancelled = never) -> Any:
        """The answer of one of the evaluators, or of another if that one dies. Errors are raised as the evaluator raised them."""
        blamed = 0
        while True:
            members = self.await_ready(cancelled)
            call = self.send(min(members, key=lambda member: len(member.calls)), method, *arguments)
            while not ray.wait([call.reference], timeout=POLL_SECONDS)[0]:
                if cancelled():
                    self.abandon([call])
                    raise InterruptedRunError(f"the run was cancelled while an evaluator was asked for `{method}`")
            try:
                return self.fetch(call)
            except RayTaskError:
                raise  # the evaluator raised it, and is alive
            except RayError as error:
                blamed += call.to_blame
                if blamed >= ATTEMPTS:
                    raise EvaluationError(f"evaluators died {ATTEMPTS} times when asked for `{method}`, last with {reason(error)}; {ADVICE}") from error

    def _settle(self, lost: Call) -> None:
        """Decide which call an evaluator died of, at the first sign of its death: the oldest that is not known to have succeeded."""
        with self._lock:
            member = lost.member
            if lost not in member.calls:
                return  # settled when another of its calls was found lost
            for call in member.calls:
                if call is lost or not _returned(call):
                    call.to_blame = True
                    break
            member.calls.clear()
            self._ping(member)

    def _forget(self, call: Call) -> None:
        with self._lock:
            if call in call.member.calls:
                call.member.calls.remove(call)


def dismiss() -> None:
    """End the cluster's evaluators, those of an earlier scheduler too, and give back what they took. The next run starts others, which load models again."""
    named: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    for actor in named:
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(EVALUATOR):
            with contextlib.suppress(ValueError):  # one that has ended in the meantime
                ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)


def reason(error: BaseException) -> str:
    """An error's type and the first line of its text."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _returned(call: Call) -> bool:
    """Whether a call has returned, with a value or an error of its own."""
    if not ray.wait([call.reference], timeout=0)[0]:
        return False
    try:
        ray.get(call.reference, timeout=FETCH_SECONDS)
    except RayTaskError:
        return True
    except RayError:
        return False
    return True


def _cause(error: RayTaskError) -> BaseException:
    """What the evaluator raised, as it raised it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UserError | EvaluationError | ValueError) else error
