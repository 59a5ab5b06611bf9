"""Single effects in two readings: at the intact input, and on average over contexts.

Removing one component from the intact input misses whatever others cover for; the mean over contexts in which others are removed too does not. Hence components
are ranked, shaded and named as the strongest by their mean effect, wherever it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Methods whose estimates are means over contexts, also in rows that have no column for these.
AVERAGED = frozenset({"surrogate", "lasso"})

TableRows = Sequence[Mapping[str, Any]]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Single:
    """The single effect of a component: at the intact input and on average over contexts, each None if unknown, with their 95% intervals."""

    component: int
    label: str
    method: str | None
    intact: float | None
    average: float | None
    intact_interval: Interval
    average_interval: Interval

    @classmethod
    def of(cls, row: Mapping[str, Any], label: str | None = None) -> Single:
        """From a row of a table of singles; `label` replaces that of the row."""
        value, interval = row["value"], (row.get("lo"), row.get("hi"))
        mean, around = row.get("average"), (row.get("average_lo"), row.get("average_hi"))
        if row["method"] in AVERAGED:
            value, interval, mean, around = None, (None, None), (row["value"] if mean is None else mean), (interval if mean is None else around)
        return cls(int(row["component"]), str(row.get("label", "") if label is None else label), row["method"], value, mean, interval, around)

    @property
    def effect(self) -> float:
        """The effect by which components are ranked: the mean over contexts if it is known."""
        return float((self.intact if self.average is None else self.average) or 0.0)

    @property
    def interval(self) -> Interval:
        """The interval of `effect`."""
        return self.intact_interval if self.average is None else self.average_interval

    @property
    def estimated(self) -> bool:
        """Whether that interval has a width."""
        lo, hi = self.interval
        return lo is not None and hi is not None and hi > lo

    @property
    def uncertain(self) -> bool:
        """Whether that interval has zero in it, so that not even the direction is known."""
        lo, hi = self.interval
        return lo is not None and hi is not None and lo < 0 < hi

    @property
    def beside(self) -> float | None:
        """The other reading, at the intact input; None if only one is known."""
        return None if self.average is None else self.intact


def ranked(rows: TableRows, labels: Sequence[str] | None = None) -> list[Single]:
    """All rows of a table of singles, the strongest first; `labels` replace those of the rows."""
    found = [Single.of(row, None if labels is None else labels[int(row["component"])]) for row in rows]
    return sorted(found, key=lambda single: -abs(single.effect))


def averaged(singles: Iterable[Single]) -> bool:
    """Whether effects are ranked by their means over contexts."""
    return any(single.average is not None for single in singles)
