"""The progress of runs, as reported to watchers."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Progress:
    """The state of a run as a whole.

    `done` counts the evaluations that it has, `reused` those among them that were not paid for, and `total` all that it will ask for, exploration and validation
    together; where an explorer may stop early, `total` falls when it does. `rate` is evaluations per second, `left` the remaining seconds at this rate, `r2` a quick
    held-out estimate from the values so far, `detail` what the phase is working on if it evaluates nothing. `warnings` are shown before the budget is spent.
    """

    run_id: str
    phase: str = "starting"
    done: int = 0
    total: int = 0
    reused: int = 0
    rate: float = 0.0
    r2: float | None = None
    left: float | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()


Watch = Callable[[Progress], None]
#: Of several runs, each known by its number.
WatchAll = Callable[[int, Progress], None]


def bar_text(progress: Progress) -> str:
    """Counts, speed, R² so far and time left, as far as they are known."""
    if not progress.total:
        return progress.detail
    told = [f"{progress.done:,}/{progress.total:,}"]
    if progress.detail:
        told.insert(0, progress.detail)
    if progress.reused:
        told.append(f"{progress.reused:,} from the store")
    if progress.rate:
        told.append(f"{progress.rate:.1f} evaluations/s")
    if progress.r2 is not None:
        told.append(f"R² so far {progress.r2:.2f}")
    if progress.left is not None:
        told.append(f"{progress.left:.0f} s left")
    return " · ".join(told)


class Tally:
    """Counts the evaluations of a run against all that it will ask for: what a phase is expected to ask until it is over, then what it asked."""

    def __init__(self, expected: Mapping[str, int], clock: Callable[[], float] = time.perf_counter) -> None:
        self._expected, self._clock = dict(expected), clock
        self._asked = Counter[str]()
        self._done = self._reused = self._measured = 0
        self._seconds = self._began = 0.0

    def begin(self, phase: str, asked: int) -> None:
        """Note that a phase asks for more evaluations, and measures from now on."""
        self._asked[phase] += asked
        self._expected[phase] = max(self._expected.get(phase, 0), self._asked[phase])
        self._began = self._clock()

    def add(self, answered: int, *, reused: bool) -> None:
        """Note evaluations that were answered."""
        self._done += answered
        if reused:
            self._reused += answered
        else:
            self._measured += answered

    def pause(self) -> None:
        """Note that nothing is measured for now: the rate is that of measuring, without fits."""
        self._seconds += self._clock() - self._began

    def settle(self, phase: str) -> None:
        """Note that a phase asks for nothing more."""
        self._expected[phase] = self._asked[phase]

    def figures(self) -> dict[str, Any]:
        """The fields of `Progress` that count: done, total, reused, rate and left."""
        seconds, total = self._seconds + self._clock() - self._began, sum(self._expected.values())
        rate = self._measured / seconds if self._measured and seconds > 0 else 0.0
        return {"done": self._done, "total": total, "reused": self._reused, "rate": rate, "left": (total - self._done) / rate if rate else None}


#: Phases of runs that nothing more is expected of.
ENDED = frozenset({"done", "failed", "cancelled", "interrupted", "paused"})


class SetProgress:
    """The progress of several runs as one: runs that have not started are expected to be as large as the others."""

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels
        self._known: dict[int, Progress] = {}

    def observe(self, number: int, progress: Progress) -> Progress:
        """The progress of all runs, of which this one has news; of a single one as it is. Its warnings begin with the run's label."""
        if len(self._labels) == 1:
            return progress
        self._known[number] = progress
        known = self._known.values()
        sized = [each.total for each in known if each.total]
        ended = sum(each.phase in ENDED for each in known)
        done, total = sum(each.done for each in known), round(sum(sized) * len(self._labels) / len(sized)) if sized else 0
        rate = sum(each.rate for each in known if each.phase not in ENDED)
        return Progress(
            progress.run_id,
            f"{ended} of {len(self._labels)} runs",
            done,
            total,
            sum(each.reused for each in known),
            rate,
            left=(total - done) / rate if rate and total else None,
            warnings=tuple(f"{self._labels[number]}: {text}" for text in progress.warnings),
        )


def progress_json(progress: Progress) -> str:
    """Progress as the store keeps it."""
    return json.dumps(asdict(progress), ensure_ascii=False)


def progress_from(text: str) -> Progress:
    """Progress as `progress_json` wrote it."""
    return progress_of(json.loads(text))


def progress_of(told: Mapping[str, Any]) -> Progress:
    """Progress from its fields as JSON has them; those that this version does not know are dropped."""
    known: dict[str, Any] = {field.name: told[field.name] for field in fields(Progress) if field.name in told}
    known["warnings"] = tuple(known.get("warnings") or ())
    return Progress(**known)
