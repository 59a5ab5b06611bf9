"""Choose components of a training set to drop: harmful ones, all but the best, or redundant ones for which others can substitute.

Pure: the choice is made on a run's surrogate by the subset solver. It is a proposal, which retraining can verify.
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
"""Kind and exactly measured deviation from additivity around the whole training set, by pair (the smaller number first)."""

#: Time limit of the solver, in seconds.
SOLVING = 10.0
#: If no number of redundant components is given, dropping them may lower the value by at most this share of the training set's total effect on it.
STAYS = 0.02
#: Below this share of a pair's mean interaction, its deviation around the whole training set is not informative.
NEGLIGIBLE = 0.1


@dataclass(frozen=True)
class DropRule:
    """A rule and the number of components to drop (to keep, for `best`; None: as many as can go with little change of the value)."""

    rule: Rule
    count: int | None
    text: str


@dataclass(frozen=True)
class Dropping:
    """A choice: the mask of what stays (bool `(n,)`), the surrogate's values for everything and for that mask, and a note on how it was found."""

    mask: Masks
    before: float
    after: float
    note: str


def read_drop_rule(drop: str | None, keep: str | None, n: int) -> DropRule:
    """Parse the rule in `--drop` or `--keep` for `n` components; UserError for a rule that is malformed or would drop nothing or everything."""
    if (drop is None) == (keep is None):
        raise UserError("drop", drop, "and keep are alternatives", "give exactly one of them, such as --drop harmful:5%")
    field, text = ("drop", drop) if drop is not None else ("keep", keep)
    assert text is not None
    rules = "harmful:5%, harmful:10, redundant or redundant:10%" if field == "drop" else "best:50 or best:50%"
    found = re.fullmatch(r"(harmful|redundant)(?::(.*))?" if field == "drop" else r"(best)(?::(.*))?", text.strip())
    if found is None or (found[2] is None and found[1] != "redundant"):
        raise UserError(field, text, "is not a known rule", f"write, for example, {rules}")
    rule: Rule = found[1]  # pyright: ignore[reportAssignmentType]  the pattern matches only these rules
    return DropRule(rule, None if found[2] is None else _count(field, text, found[2].strip(), n), text)


def _count(field: str, text: str, amount: str, n: int) -> int:
    if amount.endswith("%"):
        share = _number(amount[:-1])
        if share is None or not 0 < share < 100:
            raise UserError(field, text, "has no percentage between 0 and 100", "write, for example, 5%")
        count = max(1, round(share / 100 * n))
    else:
        count = int(amount) if re.fullmatch(r"\d{1,9}", amount) else 0
        if count < 1:
            raise UserError(field, text, "has no positive whole number of components", f"write, for example, {'harmful:10' if field == 'drop' else 'best:50'}")
    if count >= n:
        what = "drops everything" if field == "drop" else "drops nothing"
        raise UserError(field, text, f"{what}: the run has {n} components", f"give fewer than {n}")
    return count


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def choose(surrogate: FourierSurrogate, drop_rule: DropRule, *, more_is_better: bool, measured: Measured | None = None) -> Dropping:
    """Choose what to drop on the surrogate of the mean over queries; `measured` has the pairs whose deviation from additivity is known exactly.

    Rule `harmful` drops the set, of at most `count` components, whose removal improves the value most; `best` keeps the set of `count` components with the best
    value. UserError if nothing is harmful or redundant.
    """
    if drop_rule.rule == "redundant":
        return _without_redundant(surrogate, drop_rule, measured or {}, more_is_better=more_is_better)
    assert drop_rule.count is not None, "only redundant may omit the number"
    harmful = drop_rule.rule == "harmful"
    few = not harmful and drop_rule.count <= surrogate.n // 2  # choosing the smaller side gives the smaller programme
    count = drop_rule.count if harmful or few else surrogate.n - drop_rule.count
    found = best_subset(surrogate, count, mode="increase" if more_is_better else "decrease", keep=few, at_most=harmful, time_limit=SOLVING)
    mask = np.full(surrogate.n, not few)
    mask[list(found.components)] = few
    if mask.all():
        raise UserError(
            "drop", drop_rule.text, "finds nothing: the run predicts no component whose removal would improve the value", "keep the whole training set"
        )
    note = found.note if found.exact else f"{found.note} It may be up to {found.gap:.3g} below the optimum."
    if harmful and len(found.components) < count:
        note = f"Removing more than these {len(found.components)} would not improve the value further. {note}"
    return _dropping(surrogate, mask, note)


def _without_redundant(surrogate: FourierSurrogate, drop_rule: DropRule, measured: Measured, *, more_is_better: bool) -> Dropping:
    """Drop components for which others can substitute: a greedy walk determines how many, and the solver which, unless the walk's own choice is better."""
    pairs = redundant_pairs(surrogate, measured, more_is_better=more_is_better)
    if not pairs:
        raise UserError(
            "drop", drop_rule.text, "finds no two components that significantly substitute for each other", "run again with more subsets, or drop harmful ones"
        )
    covers = _covers(pairs, surrogate.n)
    walk, values = _walk(surrogate, pairs, covers, more_is_better=more_is_better)
    count = min(len(walk), drop_rule.count) if drop_rule.count is not None else _staying(surrogate, values, more_is_better=more_is_better)
    if not count:
        problem = f"finds {len(pairs)} pairs, but dropping one component of any pair would lower the value by more than {STAYS:.0%} of the training set's effect on it"
        raise UserError("drop", drop_rule.text, problem, "give a number, such as redundant:10%, to drop them anyway")
    greedy, solved = (np.ones(surrogate.n, dtype=np.bool_) for _ in range(2))
    greedy[walk[:count]] = False
    involved, together = np.flatnonzero(covers.any(axis=1)), covers.copy()
    np.fill_diagonal(together, True)
    # One row per component with substitutes: if it goes, at least one substitute stays. The last row keeps all components without substitutes.
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
    short = f" Only {count} can go if each must leave a substitute." if drop_rule.count is not None and count < drop_rule.count else ""
    return _dropping(
        surrogate,
        solved if better else greedy,
        f"Of {len(involved)} components in {len(pairs)} redundant pairs, {count} go, each leaving a substitute.{short} {found.note}",
    )


def redundant_pairs(surrogate: FourierSurrogate, measured: Measured | None = None, *, more_is_better: bool) -> list[tuple[int, int]]:
    """Pairs of helpful components that substitute for each other: removing both does more harm than the sum of the single removals. Strongest first.

    Redundancy is judged around the whole training set, by the exact measurement or else by the surrogate, for pairs whose mean interaction has an interval that
    excludes zero. Where removal changes nothing there (of three copies, any two can go), the mean over subsets decides. The intervals are not corrected for
    multiple comparisons: a falsely included pair does little harm, because the drop is limited by its predicted effect on the value.
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
        # For a helpful redundant pair, the joint effect and the deviation are both positive.
        here, there = sign * deviation, mean.get(pair, 0.0)
        if abs(here) > NEGLIGIBLE * abs(there):
            return kind == "redundancy" and here > 0
        return there < 0 and all(mean.get((member,), 0.0) > 0 for member in pair)

    rank = {row["members"]: place for place, row in enumerate(rows)}
    return sorted(filter(redundant, said | dict(known)), key=lambda pair: (rank.get(pair, len(rows)), pair))


def _covers(pairs: Sequence[tuple[int, int]], n: int) -> Masks:
    """Which components substitute for which, bool `(n, n)`."""
    covers = np.zeros((n, n), dtype=np.bool_)
    for one, other in pairs:
        covers[one, other] = covers[other, one] = True
    return covers


def _walk(surrogate: FourierSurrogate, pairs: Sequence[tuple[int, int]], covers: Masks, *, more_is_better: bool) -> tuple[list[int], list[float]]:
    """Drop from each intact pair the component whose removal leaves the better value, provided that every dropped component keeps a substitute.

    Returns the components in the order in which they are dropped, and the value after each step.
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
    """The largest number of steps of the walk after which the value has fallen by at most the share `STAYS`."""
    everything, nothing = surrogate.predict(np.stack([np.ones(surrogate.n, dtype=np.bool_), np.zeros(surrogate.n, dtype=np.bool_)])).tolist()
    sign = 1.0 if more_is_better else -1.0
    least = sign * everything - STAYS * abs(everything - nothing)
    return max((step for step, value in enumerate(values, 1) if sign * value >= least), default=0)


def _dropping(surrogate: FourierSurrogate, mask: Masks, note: str) -> Dropping:
    before, after = surrogate.predict(np.stack([np.ones_like(mask), mask])).tolist()
    return Dropping(mask, before, after, note)
