"""The progress of a run, as reported to watchers."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The state of a run. `rate` is evaluations per second, `r2` a quick held-out estimate from the values so far, `left` the remaining seconds of this phase.

    `warnings` are shown before the budget is spent.
    """

    run_id: str
    phase: str = "starting"
    done: int = 0
    total: int = 0
    reused: int = 0
    rate: float = 0.0
    r2: float | None = None
    left: float | None = None
    warnings: tuple[str, ...] = ()


Watch = Callable[[Progress], None]
