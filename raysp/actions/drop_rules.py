"""Which components of a training set to drop: the harmful, all but the best, or those that others cover for.

Pure: chosen on a run's surrogate by the engine's subset solver, and no more than proposed; whether it was wise, trainings say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysp.errors import UserError
from raysp.masks import Masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import UNIFORM
from raysp.spectral.selection import best_subset
from raysp.validation.kinds import surrogate_kinds

Rule = Literal["harmful", "redundant", "best"]
Measured = Mapping[tuple[int, int], tuple[str, float]]
"""Pairs (the smaller number first) whose kind and deviation from additivity around the whole training set were measured exactly."""

#: Seconds for the solver.
SOLVING = 10.0
#: Share of what the training set does for the value by which dropping redundant components may lower it, where no number of them is asked for.
STAYS = 0.02
#: Share of a pair's mean interaction below which what it does around the whole training set says nothing of it.
NEGLIGIBLE = 0.1


@dataclass(frozen=True)
class DropRule:
    """What a person asked for: a rule and a number of components (to keep, for `best`; None: as many as the value lets go)."""

    rule: Rule
    count: int | None
    text: str


@dataclass(frozen=True)
class Dropping:
    """What goes: the mask of what stays (bool `(n,)`), the surrogate's values with everything and with that, and how it was found."""

    mask: Masks
    before: float
    after: float
    note: str


def read_drop_rule(drop: str | None, keep: str | None, n: int) -> DropRule:
    """The wish in `--drop` or `--keep`, for `n` components; UserError for what is none, or would drop nothing or everything."""
    if (drop is None) == (keep is None):
        raise UserError("drop", drop, "and keep are alternatives", "give one of them, such as --drop harmful:5%")
    field, text = ("drop", drop) if drop is not None else ("keep", keep)
    assert text is not None
    rules = "harmful:5%, harmful:10, redundant or redundant:10%" if field == "drop" else "best:50 or best:50%"
    found = re.fullmatch(r"(harmful|redundant)(?::(.*))?" if field == "drop" else r"(best)(?::(.*))?", text.strip())
    if found is None or (found[2] is None and found[1] != "redundant"):
        raise UserError(field, text, "is not understood", f"write for example {rules}")
    rule: Rule = found[1]  # pyright: ignore[reportAssignmentType]  the pattern's own words
    return DropRule(rule, None if found[2] is None else _count(field, text, found[2].strip(), n), text)


def _count(field: str, text: str, amount: str, n: int) -> int:
    if amount.endswith("%"):
        share = _number(amount[:-1])
        if share is None or not 0 < share < 100:
            raise UserError(field, text, "has no percentage between 0 and 100", "write for example 5%")
        count = max(1, round(share / 100 * n))
    else:
        count = int(amount) if re.fullmatch(r"\d{1,9}", amount) else 0
        if count < 1:
            raise UserError(field, text, "has no whole number of components from 1", "write for example harmful:10" if field == "drop" else "best:50")
    if count >= n:
        what = "drops everything" if field == "drop" else "drops nothing"
        raise UserError(field, text, f"{what}: the run has {n} components", f"give fewer than {n}")
    return count


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def choose(surrogate: FourierSurrogate, wish: DropRule, *, more_is_better: bool, measured: Measured | None = None) -> Dropping:
    """What to drop, as far as the surrogate of the mean over the queries can tell. `measured` are pairs whose deviation from additivity is known exactly.

    Harmful are, of at most so many components, those whose removal improves the value most together; best, those with which it is best. UserError where
    nothing is harmful or redundant.
    """
    if wish.rule == "redundant":
        return _without_redundant(surrogate, wish, measured or {}, more_is_better=more_is_better)
    assert wish.count is not None, "only redundant goes without a number"
    harmful = wish.rule == "harmful"
    few = not harmful and wish.count <= surrogate.n // 2  # the smaller choice is the smaller programme
    count = wish.count if harmful or few else surrogate.n - wish.count
    found = best_subset(surrogate, count, mode="increase" if more_is_better else "decrease", keep=few, at_most=harmful, time_limit=SOLVING)
    mask = np.full(surrogate.n, not few)
    mask[list(found.components)] = few
    if mask.all():
        raise UserError(
            "drop", wish.text, "finds nothing: the run predicts no component whose removal would improve the value", "keep the training set as it is"
        )
    note = found.note if found.exact else f"{found.note} It may be {found.gap:.3g} below the best."
    if harmful and len(found.components) < count:
        note = f"Removing more than these {len(found.components)} would not improve the value. {note}"
    return _dropping(surrogate, mask, note)


def _without_redundant(surrogate: FourierSurrogate, wish: DropRule, measured: Measured, *, more_is_better: bool) -> Dropping:
    """Of components that cover for each other, those that can go: how many, a greedy walk says; which, the solver, where it does better than the walk."""
    pairs = redundant_pairs(surrogate, measured, more_is_better=more_is_better)
    if not pairs:
        raise UserError("drop", wish.text, "finds no two components that cover for each other beyond doubt", "ask with more subsets, or drop the harmful")
    covers = _covers(pairs, surrogate.n)
    walk, values = _walk(surrogate, pairs, covers, more_is_better=more_is_better)
    count = min(len(walk), wish.count) if wish.count is not None else _staying(surrogate, values, more_is_better=more_is_better)
    if not count:
        problem = (
            f"finds {len(pairs)} pairs, and dropping one of any of them would lower the value by more than {STAYS:.0%} of what the training set does for it"
        )
        raise UserError("drop", wish.text, problem, "give a number, such as redundant:10%, to drop all the same")
    greedy, solved = (np.ones(surrogate.n, dtype=np.bool_) for _ in range(2))
    greedy[walk[:count]] = False
    involved, together = np.flatnonzero(covers.any(axis=1)), covers.copy()
    np.fill_diagonal(together, True)
    # One that goes leaves at least one of those that cover for it, a row each; those without such stay.
    costs = np.concatenate([together[involved], np.isin(np.arange(surrogate.n), involved, invert=True)[None]]).astype(np.float64)
    found = best_subset(
        surrogate,
        count,
        mode="increase" if more_is_better else "decrease",
        costs=costs,
        budget=np.append(covers[involved].sum(axis=1), 0),
        time_limit=SOLVING,
    )
    solved[list(found.components)] = False
    one, other = surrogate.predict(np.stack([solved, greedy]))
    better = one >= other if more_is_better else one <= other
    short = f" Only {count} can go where each is to leave one that covers for it." if wish.count is not None and count < wish.count else ""
    return _dropping(
        surrogate,
        solved if better else greedy,
        f"{count} go of {len(involved)} in {len(pairs)} redundant pairs, each with one left that covers for it.{short} {found.note}",
    )


def redundant_pairs(surrogate: FourierSurrogate, measured: Measured | None = None, *, more_is_better: bool) -> list[tuple[int, int]]:
    """Pairs of which each covers for the other in what helps: removing both does more harm than the single removals add up to. Strongest first.

    Around the whole training set, as measured exactly or else as the surrogate has it, where the interval of the pair's mean interaction does not hold zero. Where
    nothing happens there (of three copies any one can go, and any two), the mean over subsets decides. The value may not fall when components go, so a pair too many
    is no great harm, and nothing is asked here of all pairs that might have been looked at.
    """
    known, sign = measured or {}, 1.0 if more_is_better else -1.0
    index = "bii" if surrogate.keep_probability == UNIFORM else "wbii"
    rows = [row | {"members": tuple(row["components"])} for row in surrogate.interactions(index, 2, 1).to_pylist()]
    mean = {row["members"]: sign * row["value"] for row in rows}
    likely = [row["members"] for row in rows if row["order"] == 2 and (row["significant"] or (row["lo"] < row["hi"] and row["lo"] * row["hi"] > 0))]
    kinds = surrogate_kinds(surrogate, likely).to_pylist() if likely else []
    said: dict[tuple[int, int], tuple[str, float]] = {(row["components"][0], row["components"][1]): (row["kind"], row["deviation"]) for row in kinds}

    def redundant(pair: tuple[int, int]) -> bool:
        kind, deviation = known[pair] if pair in known else said[pair]
        # Of a redundant pair that helps joint effect and deviation are both positive.
        here, there = sign * deviation, mean.get(pair, 0.0)
        if abs(here) > NEGLIGIBLE * abs(there):
            return kind == "redundancy" and here > 0
        return there < 0 and all(mean.get((member,), 0.0) > 0 for member in pair)

    rank = {row["members"]: place for place, row in enumerate(rows)}
    return sorted(filter(redundant, said | dict(known)), key=lambda pair: (rank.get(pair, len(rows)), pair))


def _covers(pairs: Sequence[tuple[int, int]], n: int) -> Masks:
    """Which components cover for which, bool `(n, n)`."""
    covers = np.zeros((n, n), dtype=np.bool_)
    for one, other in pairs:
        covers[one, other] = covers[other, one] = True
    return covers


def _walk(surrogate: FourierSurrogate, pairs: Sequence[tuple[int, int]], covers: Masks, *, more_is_better: bool) -> tuple[list[int], list[float]]:
    """Pair by pair, unless one of it is gone, that one goes without which the value is better, if all that are gone still have one that covers for them.

    Components in the order in which they go, with the values on the way.
    """
    mask = np.ones(surrogate.n, dtype=np.bool_)
    order: list[int] = []
    values: list[float] = []
    for pair in pairs:
        if not mask[list(pair)].all():
            continue
        tried = np.stack([mask, mask])
        tried[[0, 1], list(pair)] = False
        allowed = [all((covers[gone] & left).any() for gone in np.flatnonzero(~left)) for left in tried]
        if not any(allowed):
            continue
        predicted = np.where(allowed, surrogate.predict(tried) * (1 if more_is_better else -1), -np.inf)
        best = int(np.argmax(predicted))
        mask = tried[best]
        order.append(pair[best])
        values.append(float(surrogate.predict(mask[None])[0]))
    return order, values


def _staying(surrogate: FourierSurrogate, values: Sequence[float], *, more_is_better: bool) -> int:
    """The most steps of a walk after which the value is still about what it was."""
    everything, nothing = surrogate.predict(np.stack([np.ones(surrogate.n, dtype=np.bool_), np.zeros(surrogate.n, dtype=np.bool_)])).tolist()
    sign = 1.0 if more_is_better else -1.0
    least = sign * everything - STAYS * abs(everything - nothing)
    return max((step for step, value in enumerate(values, 1) if sign * value >= least), default=0)


def _dropping(surrogate: FourierSurrogate, mask: Masks, note: str) -> Dropping:
    before, after = surrogate.predict(np.stack([np.ones_like(mask), mask])).tolist()
    return Dropping(mask, before, after, note)
