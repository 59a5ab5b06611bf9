"""The progress of a run, as reported to watchers."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any


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


def progress_json(progress: Progress) -> str:
    """Progress as the store keeps it."""
    return json.dumps(asdict(progress), ensure_ascii=False)


def progress_from(text: str) -> Progress:
    """Progress as `progress_json` wrote it; fields that this version does not know are dropped."""
    known = {field.name for field in fields(Progress)}
    told: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in known}
    told["warnings"] = tuple(told.get("warnings", ()))
    return Progress(**told)
