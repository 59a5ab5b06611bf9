"""Where a run stands, as those who watch it are told."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `rate` is evaluations a second, `r2` a quick held-out estimate from the values so far, `left` seconds of this phase.

    `warnings` are what a person should hear before the budget is spent.
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
