"""How single effects are shown in their two readings: side by side where both are known, with the interval of the one by which components are ranked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raysp.report.numbers import Scale, scale
from raysp.runs.singles import Single

#: What the mean over contexts is called.
ON_AVERAGE = "on average"


def both(singles: Iterable[Single]) -> bool:
    """Whether any effect is known in both readings."""
    return any(single.beside is not None for single in singles)


def columns(singles: Sequence[Single], place: str) -> list[str]:
    """The titles of the columns of `cells`; `place` is what the reading at the intact input is called."""
    title = [place, ON_AVERAGE] if both(singles) else ["effect"]
    return [*title, "95% interval"] if any(single.estimated for single in singles) else title


def numbers(singles: Sequence[Single]) -> Scale:
    """The scale of all numbers of `cells`."""
    return scale(number for single in singles for number in (single.intact, single.average, *single.interval))


def cells(singles: Sequence[Single]) -> list[list[str]]:
    """For each single effect its numbers as text, in the order of `columns`; the interval is that of the reading by which it is ranked."""
    size, two, wide = numbers(singles), both(singles), any(single.estimated for single in singles)
    return [
        [
            *([size.show(single.intact), size.show(single.average)] if two else [size.show(single.effect)]),
            *([size.interval(*single.interval)] if wide else []),
        ]
        for single in singles
    ]
