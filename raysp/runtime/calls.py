"""What evaluators are sent, leases and questions, and what comes back, for those who asked."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from raysp.errors import EvaluationError
from raysp.runtime.portable import portable
from raysp.scheduling import Lease


@dataclass(eq=False)
class Ask:
    """A question to some evaluator that is no measurement: `method` with its arguments, and its name. `deaths` counts the evaluators that died of it."""

    name: str
    method: str
    arguments: tuple[Any, ...]
    model: str | None
    answer: "Future[Any]" = field(default_factory=Future)
    deaths: int = 0
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Call:
    """What an evaluator was sent: a lease or a question. `began` is when it was the first that the evaluator had to do; None before that."""

    work: Lease | Ask
    sent: float = field(default_factory=time.monotonic)
    began: float | None = None

    def left(self, now: float) -> float:
        """The seconds that a lease is expected to take from now on; a question is over at any time."""
        return self.work.seconds - (now - (self.began or now)) if isinstance(self.work, Lease) else 0.0


def about(lease: Lease) -> dict[str, Any]:
    """What a line in the log says about a lease."""
    return {"lease": lease.number, "evaluator": lease.worker, "run": lease.run_id, "order": lease.order, "masks": len(lease.rows)}


def settle(ask: Ask, error: BaseException | None, answer: "Future[Any] | None" = None) -> None:
    """Tell whoever asked, unless they have stopped waiting."""
    if not ask.answer.set_running_or_notify_cancel():
        return
    if error is not None:
        ask.answer.set_exception(error)
    elif answer is not None:
        ask.answer.set_result(answer.result())


def cause_of(error: BaseException) -> Exception:
    """What the evaluator raised, in a form that can be sent on."""
    cause = getattr(error, "cause", None)
    found = portable(cause if isinstance(cause, Exception) else error, "In an evaluator")
    return found if isinstance(found, Exception) else EvaluationError(str(found))


def first_line(error: BaseException) -> str:
    """An error's kind, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
