"""The best set of components to remove, or to keep, under a Fourier surrogate: exactly, as a mixed-integer programme, or with a stated gap.

Removal: Butler et al., NeurIPS 2025 (ProxySPEX). The programme maximises sum_S w(S) z_S (see `flips`), z_S being the parity of the components
chosen from S. Only the x are integers: of the facets of the parity polytope (Jeroslow 1975) those that w(S) pushes z_S against are enough. Products of
removed components would serve as well, but every coefficient falls into alternating sums of them, and their relaxation bounds far worse.
What is best is best for the surrogate.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.masks import Masks
from raysp.spectral.flips import Flips
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats
from raysp.spectral.walsh import MAX_DENSE, all_masks

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["change", "increase", "decrease"]
Method = Literal["auto", "enumerate", "milp", "local"]
Chosen = NDArray[np.bool_]

#: Up to this many components every mask is looked at: that is faster than a programme, and exact.
ENUMERATED = 14
#: With more, every set of the size asked for is, up to so many sets times terms and sets times components: a matter of seconds.
LISTED_TERMS, LISTED_MEMBERS = 300_000_000, 10_000_000
#: Facets above which no programme is solved: its first relaxation alone would take longer than the usual limit.
MILP_FACETS = 50_000
#: Relative size of a gap that is rounding.
CLOSED = 1e-6
#: Slack with which a budget counts as kept.
SLACK = 1e-9
#: The directions in which a mode looks.
SIGNS: dict[Mode, tuple[float, ...]] = {"change": (1.0, -1.0), "increase": (1.0,), "decrease": (-1.0,)}
#: Steps of a local search at most; each makes the answer better.
STEPS = 10_000
#: The r of a removal curve, as published.
CURVE = (3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Selection:
    """A set of components and how far it can be from the best one.

    `value` is the surrogate's when they are removed (or alone kept); `objective` what was maximised, the change of the value in the wanted direction
    from the intact input (or from nothing kept). No set that was allowed has an objective above `bound`; `gap` = bound - objective, 0 if `exact`.
    """

    components: tuple[int, ...]
    value: float
    objective: float
    bound: float
    gap: float
    exact: bool
    note: str


@dataclass(frozen=True)
class _Limits:
    """lower <= matrix · x <= upper; matrix float64 `(c, n)`. The first row counts the components."""

    matrix: Floats
    lower: Floats
    upper: Floats

    def allow(self, used: Floats) -> NDArray[np.bool_]:
        """Which amounts used, float64 `(c, ...)`, are allowed."""
        shape = (-1, *([1] * (used.ndim - 1)))
        return np.all((used >= self.lower.reshape(shape) - SLACK) & (used <= self.upper.reshape(shape) + SLACK), axis=0)


def best_subset(
    surrogate: FourierSurrogate,
    r: int,
    mode: Mode = "change",
    *,
    keep: bool = False,
    at_most: bool = False,
    costs: object = None,
    budget: object = None,
    groups: Sequence[Hashable] | None = None,
    group_limits: int | Mapping[Any, int] | None = None,
    method: Method = "auto",
    time_limit: float = 30.0,
    mip_gap: float = 0.0,
) -> Selection:
    """The r components whose removal changes (increases, decreases) the surrogate's value most; with `keep`, whose keeping does, all else removed.

    Exactly r of them, or `at_most` r. `costs` (`(n,)`, or `(c, n)` for c budgets) add up to at most `budget` (a number, or `(c,)`); of the components
    with the same label in `groups` (`(n,)`) at most `group_limits` are chosen (one number for all groups, or one a label). Where there are few choices, all are
    compared; else HiGHS solves a programme. It stops after `time_limit` seconds, or once within the relative `mip_gap`; then a greedy search with swaps goes on, and the gap is stated. `method` forces a way. To keep
    most components, ask for those to remove, with mode "increase": the programme is then far smaller.

    Raises UserError for an r, budget or group that cannot be.
    """
    if mode not in SIGNS:
        raise UserError("mode", mode, "is not known", "choose change, increase or decrease")
    if method not in {"auto", "enumerate", "milp", "local"}:
        raise UserError("method", method, "is not known", "choose auto, enumerate, milp or local")
    if not time_limit > 0 or mip_gap < 0:
        raise UserError("time_limit" if not time_limit > 0 else "mip_gap", min(time_limit, mip_gap), "is not positive", "give seconds above 0 and a gap from 0")
    limits = _limits(surrogate.n, r, at_most=at_most, costs=costs, budget=budget, groups=groups, group_limits=group_limits)
    signs = SIGNS[mode]
    every = _every(surrogate, int(r), at_most=at_most, all_sizes=method == "enumerate") if method in ("auto", "enumerate") else None
    if every is not None:
        return _enumerated(surrogate, Flips.of(surrogate, keep=keep), signs, limits, every)
    search = _Search(limits, method, time_limit / len(signs), mip_gap)
    found = [search.best(surrogate, sign, keep=keep) for sign in signs]
    best = max(found, key=lambda selection: selection.objective)
    return _settled(best, max(each.bound for each in found))


def removal_curve(surrogate: FourierSurrogate, rs: Sequence[int] | None = None, **options: Any) -> pa.Table:
    """The best removal of each size (3 to 7 without sizes, as far as there are components); `options` as `best_subset`.

    Columns r int32, components list<int32>, value, change (in the direction asked for), share (|v(all) - v| / |v(all)|, null for v(all) = 0),
    bound double, exact bool.
    """
    import pyarrow as pa

    sizes = [r for r in CURVE if r <= surrogate.n] if rs is None else list(rs)
    found = [best_subset(surrogate, r, **options) for r in sizes]
    intact = float(surrogate.predict(np.ones((1, surrogate.n), dtype=np.bool_))[0])
    return pa.table(
        {
            "r": pa.array(sizes, pa.int32()),
            "components": pa.array([list(each.components) for each in found], pa.list_(pa.int32())),
            "value": pa.array([each.value for each in found], pa.float64()),
            "change": pa.array([each.objective for each in found], pa.float64()),
            "share": pa.array([abs(intact - each.value) / abs(intact) if intact else None for each in found], pa.float64()),
            "bound": pa.array([each.bound for each in found], pa.float64()),
            "exact": pa.array([each.exact for each in found], pa.bool_()),
        }
    )


# ---- what is allowed


def _limits(n: int, r: int, *, at_most: bool, costs: object, budget: object, groups: Sequence[Hashable] | None, group_limits: object) -> _Limits:
    if int(r) != r or not 0 <= r <= n:
        raise UserError("r", r, f"is no number of components from 0 to {n}", f"choose among the {n} there are")
    rows = [np.ones((1, n)), *_cost_rows(n, costs, budget), *_group_rows(n, groups, group_limits)]
    matrix = np.concatenate([row[:, :n] for row in rows])
    upper = np.concatenate([[float(r)], *(row[:, n] for row in rows[1:])])
    lower = np.full(len(matrix), -np.inf)
    lower[0] = 0 if at_most else r
    return _Limits(matrix, lower, upper)


def _cost_rows(n: int, costs: object, budget: object) -> list[Floats]:
    """The costs with their budget as last column, float64 `(c, n + 1)`."""
    if costs is None and budget is None:
        return []
    if costs is None or budget is None:
        raise UserError("budget" if budget is None else "costs", None, "is missing", "give both costs and their budget")
    matrix, most = np.atleast_2d(np.asarray(costs, dtype=np.float64)), np.atleast_1d(np.asarray(budget, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != n or most.shape != (len(matrix),):
        raise UserError("costs", matrix.shape, f"with budgets {most.shape} do not fit {n} components", f"give costs ({n},) and a number, or (c, {n}) and (c,)")
    if not (np.isfinite(matrix).all() and (matrix >= 0).all() and not np.isnan(most).any()):
        raise UserError("costs", None, "hold a number that is negative or not finite", "give costs from 0")
    return [np.concatenate([matrix, most[:, None]], axis=1)]


def _group_rows(n: int, groups: Sequence[Hashable] | None, group_limits: Any) -> list[Floats]:
    """One row a group, its limit last."""
    if groups is None and group_limits is None:
        return []
    if groups is None or group_limits is None:
        raise UserError("groups" if groups is None else "group_limits", None, "is missing", "give both groups and their limits")
    labels = list(groups)
    if len(labels) != n:
        raise UserError("groups", len(labels), f"labels for {n} components", "give one label a component")
    most: Mapping[Any, int] = group_limits if isinstance(group_limits, Mapping) else dict.fromkeys(labels, group_limits)
    unknown = [label for label in most if label not in set(labels)]
    if unknown:
        raise UserError("group_limits", unknown[0], "is no group", "use the labels in groups")
    return [np.array([[*(label == each for each in labels), limit]], dtype=np.float64) for label, limit in most.items()]


# ---- the ways to search


def _every(surrogate: FourierSurrogate, r: int, *, at_most: bool, all_sizes: bool) -> Masks | None:
    """The choices among which the best one is, bool `(m, n)`; None where these are too many to be looked at."""
    n = surrogate.n
    if all_sizes or n <= ENUMERATED:
        if n > MAX_DENSE:
            raise UserError("method", "enumerate", f"would look at 2^{n} masks", "use milp or local")
        return all_masks(n)
    sizes = range(r + 1) if at_most else (r,)
    count = sum(comb(n, size) for size in sizes)
    if count * len(surrogate) > LISTED_TERMS or count * n > LISTED_MEMBERS:
        return None
    chosen = np.zeros((count, n), dtype=np.bool_)
    for row, members in enumerate(members for size in sizes for members in combinations(range(n), size)):
        chosen[row, list(members)] = True
    return chosen


def _enumerated(surrogate: FourierSurrogate, flips: Flips, signs: Sequence[float], limits: _Limits, every: Masks) -> Selection:
    """The best by looking at all that are allowed."""
    allowed = every[limits.allow(limits.matrix @ every.T.astype(np.float64))]
    if not len(allowed):
        raise _impossible(limits)
    end = surrogate.predict(flips.masks(np.zeros((1, flips.n), dtype=np.bool_)))[0]
    values = surrogate.predict(flips.masks(allowed))
    gains = np.max([sign * (values - end) for sign in signs], axis=0)
    best = int(np.argmax(gains))
    gain = float(gains[best])
    return Selection(_members(allowed[best]), float(values[best]), gain, gain, 0.0, exact=True, note="All sets that were allowed were compared.")


@dataclass(frozen=True)
class _Search:
    """What is searched within, how, for how many seconds and to which relative gap."""

    limits: _Limits
    method: Method
    seconds: float
    mip_gap: float

    def best(self, surrogate: FourierSurrogate, sign: float, *, keep: bool) -> Selection:
        """The best in one direction: the programme's answer if it is proved, else the better of what it and the local search found."""
        flips = Flips.of(surrogate, keep=keep, sign=sign)
        scale = float(np.abs(flips.weights).max(initial=0.0)) or 1.0
        flips = replace(flips, weights=flips.weights / scale)  # HiGHS knows absolute tolerances
        facets = sum(len(block) << (k - 1) for k, _, block in flips.sets.spans())
        start, bound = self._start(flips)
        candidates: list[Chosen] = []
        proved, note = False, "A greedy search with swaps found the set"
        note += ", as asked." if facets <= MILP_FACETS else f": {facets:,} facets are too many for a programme."
        if self.method == "milp" or (self.method == "auto" and facets <= MILP_FACETS):
            chosen, least, proved = self._programme(flips)
            bound = min(bound, least)
            candidates += [] if chosen is None else [chosen]
            note = (
                "HiGHS solved the programme."
                if proved
                else f"HiGHS reached its time limit ({self.seconds:.3g} s in each direction); a greedy search with swaps went on."
            )
        if not proved:
            candidates += [_climb(flips, self.limits, begin) for begin in (start, _greedy(flips, self.limits)) if begin is not None]
        if not candidates:
            raise UserError("time_limit", self.seconds, "was too short to find any set that is allowed", "raise it or loosen the limits")
        return _settled(_better(surrogate, flips, sign, candidates, note), bound * scale)

    def _start(self, flips: Flips) -> tuple[Chosen | None, float]:
        """A choice that is allowed, the best by a linear bound, and what no choice exceeds; UserError when nothing is allowed."""
        chosen, bound = None, np.inf
        for slopes, constant in flips.linear_bounds():
            result = self._solve(slopes, np.ones(flips.n), [(self.limits.matrix, self.limits.lower, self.limits.upper)])
            if result.status == 2:
                raise _impossible(self.limits)
            chosen = chosen if result.x is None else result.x > 0.5
            bound = min(bound, _dual(result) + constant)
        return chosen, bound

    def _programme(self, flips: Flips) -> tuple[Chosen | None, float, bool]:
        """The set HiGHS chose (None if it found none in time), an upper bound, and whether it ended by itself."""
        n = flips.n
        objective, facets, most = _facets(flips)
        added = len(objective) - n
        limits = (_padded(self.limits.matrix, added), self.limits.lower, self.limits.upper)
        result = self._solve(objective, np.concatenate([np.ones(n), np.zeros(added)]), [limits, (facets, np.full(len(most), -np.inf), most)])
        return (None if result.x is None else result.x[:n] > 0.5), _dual(result), result.status == 0

    def _solve(self, objective: Floats, integer: Floats, constraints: Sequence[tuple[Any, Any, Any]]) -> Any:
        """Scipy's result of maximising over 0 <= x <= 1."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        options = {"time_limit": self.seconds, "mip_rel_gap": self.mip_gap}
        tied = [LinearConstraint(*constraint) for constraint in constraints if len(constraint[1])]
        return milp(-objective, integrality=integer, bounds=Bounds(0, 1), constraints=tied, options=options)


def _facets(flips: Flips) -> tuple[Floats, Any, Floats]:
    """The objective over x and the z of the sets of order 2 and more; and what ties these to the x, `matrix · (x, z) <= most`.

    For each A ⊆ S of the size that z_S = 1 (w > 0: even, w < 0: odd) contradicts: with sum_{i in A} x_i - sum_{i in S - A} x_i = |A| at x = A,
    z_S <= |A| - that when w > 0, and z_S >= that - |A| + 1 when w < 0.
    """
    from scipy.sparse import csr_array

    n, (first, weights) = flips.n, (int(np.sum(flips.sets.orders <= 1)), flips.weights)
    objective = np.concatenate([flips.incidence[:first].T @ weights[:first], weights[first:]])
    columns, entries, most, widths = [np.zeros(0, dtype=np.intp)], [np.zeros(0)], [np.zeros(0)], [np.zeros(0, dtype=np.intp)]
    for k, where, block in flips.sets.spans():
        for up in (True, False) if k > 1 else ():
            rows = np.flatnonzero((weights[where] > 0) == up)
            inside = all_masks(k)
            inside = inside[inside.sum(axis=1) % 2 == (0 if up else 1)].astype(np.float64)
            signs = np.concatenate([2 * inside - 1, np.full((len(inside), 1), 1.0 if up else -1.0)], axis=1)
            own = np.concatenate([block[rows], (n + where.start - first + rows)[:, None]], axis=1)
            columns.append(np.repeat(own, len(inside), axis=0).ravel().astype(np.intp))
            entries.append(np.tile(signs, (len(rows), 1)).ravel())
            most.append(np.tile(inside.sum(axis=1) - (0 if up else 1), len(rows)))
            widths.append(np.full(len(rows) * len(inside), k + 1, dtype=np.intp))
    ends = np.concatenate([[0], np.cumsum(np.concatenate(widths))])
    matrix = csr_array((np.concatenate(entries), np.concatenate(columns), ends), shape=(len(ends) - 1, len(objective)))
    return objective, matrix, np.concatenate(most)


def _greedy(flips: Flips, limits: _Limits) -> Chosen | None:
    """The best component added again and again; None where that ends at a choice that is not allowed."""
    chosen = np.zeros(flips.n, dtype=np.bool_)
    growing = replace(limits, lower=np.full_like(limits.lower, -np.inf))
    for _ in range(flips.n):
        gains = flips.moves(chosen)[-1, :-1]
        room = growing.allow((limits.matrix @ chosen)[:, None] + limits.matrix) & ~chosen
        best = int(np.argmax(np.where(room, gains, -np.inf)))
        if not room[best] or (gains[best] <= 0 and limits.allow(limits.matrix @ chosen)):
            break
        chosen[best] = True
    return chosen if limits.allow(limits.matrix @ chosen) else None


def _climb(flips: Flips, limits: _Limits, chosen: Chosen) -> Chosen:
    """The choice after swaps (and, where allowed, additions and removals), the best one each time, until none gains."""
    chosen = chosen.copy()
    amounts = np.concatenate([limits.matrix, np.zeros((len(limits.matrix), 1))], axis=1)
    for _ in range(STEPS):
        leaves, enters = np.append(np.flatnonzero(chosen), flips.n), np.append(np.flatnonzero(~chosen), flips.n)
        gains = flips.moves(chosen)[np.ix_(leaves, enters)]
        used = (limits.matrix @ chosen)[:, None, None] - amounts[:, leaves, None] + amounts[:, None, enters]
        gains = np.where(limits.allow(used), gains, -np.inf)
        best = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[best] <= CLOSED:
            break
        moved = np.array([leaves[best[0]], enters[best[1]]])
        chosen[moved[moved < flips.n]] ^= True
    return chosen


# ---- results


def _better(surrogate: FourierSurrogate, flips: Flips, sign: float, candidates: Sequence[Chosen], note: str) -> Selection:
    """The best candidate, valued by the surrogate itself."""
    choices = np.stack([np.zeros(flips.n, dtype=np.bool_), *candidates])
    values = surrogate.predict(flips.masks(choices))
    gains = sign * (values - values[0])
    best = 1 + int(np.argmax(gains[1:]))
    return Selection(_members(choices[best]), float(values[best]), float(gains[best]), float(gains[best]), 0.0, exact=False, note=note)


def _dual(result: Any) -> float:
    """The upper bound that HiGHS has proved."""
    return np.inf if result.mip_dual_bound is None else -float(result.mip_dual_bound)


def _settled(found: Selection, bound: float) -> Selection:
    """With a bound: exact when the gap is rounding."""
    bound = max(bound, found.objective)
    exact = bound - found.objective <= CLOSED * max(abs(bound), abs(found.objective), abs(found.value))
    return replace(found, bound=found.objective if exact else bound, gap=0.0 if exact else bound - found.objective, exact=exact)


def _members(chosen: Chosen) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _impossible(limits: _Limits) -> UserError:
    r = round(limits.upper[0])
    return UserError("r", r, "components cannot be chosen within the budgets and group limits", "lower r, raise the limits or allow at most r")


def _padded(matrix: Floats, columns: int) -> Any:
    """The matrix with columns of zeros, as CSR."""
    from scipy.sparse import csr_array, hstack

    return hstack([csr_array(matrix), csr_array((len(matrix), columns))], format="csr")
