"""The best set of components to remove or keep under a Fourier surrogate, found exactly or with a stated optimality gap.

Removal follows Butler et al., NeurIPS 2025 (ProxySPEX). The mixed-integer programme maximises sum_S w(S) z_S (see `flips`), where z_S is the parity of
the components chosen from S. Only the x need to be integers: of the facets of the parity polytope (Jeroslow 1975), those against which w(S) pushes z_S
suffice. A formulation with products of removed components would also work, but it spreads each coefficient over alternating sums of products, and its
relaxation gives much weaker bounds. Optimality refers to the surrogate, not to the game itself.
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

#: Up to this many components all masks are enumerated, which is exact and faster than a programme.
ENUMERATED = 14
#: With more components, all sets of the requested size are enumerated up to this many sets times terms and sets times components (a few seconds).
LISTED_TERMS, LISTED_MEMBERS = 300_000_000, 10_000_000
#: Number of facets above which no programme is solved, because its first relaxation alone would exceed the usual time limit.
MILP_FACETS = 50_000
#: Relative gap that is attributed to rounding.
CLOSED = 1e-6
#: Tolerance for budget constraints.
SLACK = 1e-9
#: The signs of the directions searched in each mode.
SIGNS: dict[Mode, tuple[float, ...]] = {"change": (1.0, -1.0), "increase": (1.0,), "decrease": (-1.0,)}
#: Maximum number of steps of a local search; each step improves the objective.
STEPS = 10_000
#: The sizes r of a removal curve, as published.
CURVE = (3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Selection:
    """A selected set of components and its optimality gap.

    `value` is the surrogate's value with the components removed (or with only these kept). `objective` is the change of the value in the wanted direction
    from the intact (or empty) mask. No feasible set has an objective above `bound`; `gap` = bound - objective, which is 0 if `exact`. `note` states how
    the set was found.
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
    """The constraints lower <= matrix · x <= upper, with matrix float64 `(c, n)`. The first row counts the components."""

    matrix: Floats
    lower: Floats
    upper: Floats

    def allow(self, used: Floats) -> NDArray[np.bool_]:
        """Whether each column of resource usage, float64 `(c, ...)`, satisfies the constraints."""
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
    """Find the r components whose removal changes (increases, decreases) the surrogate's value most.

    With `keep`, find the components that do so when they alone are kept. Exactly r components are chosen, or `at_most` r. Their `costs` (`(n,)`, or
    `(c, n)` for c budgets) must not exceed `budget` (a number, or `(c,)`). Of the components with the same label in `groups` (`(n,)`), at most
    `group_limits` are chosen (one number for all groups, or a mapping from labels).

    If there are few choices, all are compared; otherwise HiGHS solves a mixed-integer programme up to a relative gap of `mip_gap`. If it does not finish
    within `time_limit` seconds, a greedy search with swaps follows, and the remaining gap is reported. `method` forces a particular method. To keep most
    components, search for those to remove with mode "increase" instead; the programme is then much smaller.

    Raises UserError for an invalid r, budget or group, or if no set satisfies the constraints.
    """
    if mode not in SIGNS:
        raise UserError("mode", mode, "is not known", "choose change, increase or decrease")
    if method not in {"auto", "enumerate", "milp", "local"}:
        raise UserError("method", method, "is not known", "choose auto, enumerate, milp or local")
    if not time_limit > 0 or mip_gap < 0:
        raise UserError("time_limit" if not time_limit > 0 else "mip_gap", min(time_limit, mip_gap), "is too small", "give seconds above 0 and a gap from 0")
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
    """Compute the best removal of each size `rs` (None: 3 to 7, up to the number of components); `options` are passed to `best_subset`.

    Columns: r int32, components list<int32>, value double, change double (in the requested direction), share double (|v(all) - v| / |v(all)|, null if
    v(all) = 0), bound double, exact bool.
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


# ---- constraints


def _limits(n: int, r: int, *, at_most: bool, costs: object, budget: object, groups: Sequence[Hashable] | None, group_limits: object) -> _Limits:
    if int(r) != r or not 0 <= r <= n:
        raise UserError("r", r, f"is not a number of components out of {n}", f"give an integer from 0 to {n}")
    rows = [np.ones((1, n)), *_cost_rows(n, costs, budget), *_group_rows(n, groups, group_limits)]
    matrix = np.concatenate([row[:, :n] for row in rows])
    upper = np.concatenate([[float(r)], *(row[:, n] for row in rows[1:])])
    lower = np.full(len(matrix), -np.inf)
    lower[0] = 0 if at_most else r
    return _Limits(matrix, lower, upper)


def _cost_rows(n: int, costs: object, budget: object) -> list[Floats]:
    """The costs with the budget as last column, float64 `(c, n + 1)`."""
    if costs is None and budget is None:
        return []
    if costs is None or budget is None:
        raise UserError("budget" if budget is None else "costs", None, "is missing", "give both costs and budget")
    matrix, most = np.atleast_2d(np.asarray(costs, dtype=np.float64)), np.atleast_1d(np.asarray(budget, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != n or most.shape != (len(matrix),):
        raise UserError("costs", matrix.shape, f"does not fit budget {most.shape} and {n} components", f"give costs ({n},) and a number, or (c, {n}) and (c,)")
    if not (np.isfinite(matrix).all() and (matrix >= 0).all() and not np.isnan(most).any()):
        raise UserError("costs", None, "are negative or not finite, or a budget is NaN", "give finite costs from 0 and numeric budgets")
    return [np.concatenate([matrix, most[:, None]], axis=1)]


def _group_rows(n: int, groups: Sequence[Hashable] | None, group_limits: Any) -> list[Floats]:
    """One constraint row per group, with its limit as last column."""
    if groups is None and group_limits is None:
        return []
    if groups is None or group_limits is None:
        raise UserError("groups" if groups is None else "group_limits", None, "is missing", "give both groups and group_limits")
    labels = list(groups)
    if len(labels) != n:
        raise UserError("groups", len(labels), f"labels do not match {n} components", "give one label per component")
    most: Mapping[Any, int] = group_limits if isinstance(group_limits, Mapping) else dict.fromkeys(labels, group_limits)
    unknown = [label for label in most if label not in set(labels)]
    if unknown:
        raise UserError("group_limits", unknown[0], "is not a group", "use the labels in groups")
    return [np.array([[*(label == each for each in labels), limit]], dtype=np.float64) for label, limit in most.items()]


# ---- search methods


def _every(surrogate: FourierSurrogate, r: int, *, at_most: bool, all_sizes: bool) -> Masks | None:
    """The choices to compare, bool `(m, n)`, or None if there are too many."""
    n = surrogate.n
    if all_sizes or n <= ENUMERATED:
        if n > MAX_DENSE:
            raise UserError("method", "enumerate", f"would compare 2^{n} masks", "use milp or local")
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
    """The best of all feasible choices."""
    allowed = every[limits.allow(limits.matrix @ every.T.astype(np.float64))]
    if not len(allowed):
        raise _impossible(limits)
    end = surrogate.predict(flips.masks(np.zeros((1, flips.n), dtype=np.bool_)))[0]
    values = surrogate.predict(flips.masks(allowed))
    gains = np.max([sign * (values - end) for sign in signs], axis=0)
    best = int(np.argmax(gains))
    gain = float(gains[best])
    return Selection(_members(allowed[best]), float(values[best]), gain, gain, 0.0, exact=True, note="All feasible sets were compared.")


@dataclass(frozen=True)
class _Search:
    """The constraints, method, time limit in seconds and relative gap of a search."""

    limits: _Limits
    method: Method
    seconds: float
    mip_gap: float

    def best(self, surrogate: FourierSurrogate, sign: float, *, keep: bool) -> Selection:
        """The best choice in one direction: the programme's solution if HiGHS finished, otherwise the better of that and the local search."""
        flips = Flips.of(surrogate, keep=keep, sign=sign)
        scale = float(np.abs(flips.weights).max(initial=0.0)) or 1.0
        flips = replace(flips, weights=flips.weights / scale)  # HiGHS uses absolute tolerances
        facets = sum(len(block) << (k - 1) for k, _, block in flips.sets.spans())
        start, bound = self._start(flips)
        candidates: list[Chosen] = []
        proved, note = False, "A greedy search with swaps found the set"
        note += ", as requested." if facets <= MILP_FACETS else f": {facets:,} facets are too many for a mixed-integer programme."
        if self.method == "milp" or (self.method == "auto" and facets <= MILP_FACETS):
            chosen, least, proved = self._programme(flips)
            bound = min(bound, least)
            candidates += [] if chosen is None else [chosen]
            note = (
                "HiGHS solved the mixed-integer programme."
                if proved
                else f"HiGHS reached its time limit ({self.seconds:.3g} s per direction); a greedy search with swaps followed."
            )
        if not proved:
            candidates += [_climb(flips, self.limits, begin) for begin in (start, _greedy(flips, self.limits)) if begin is not None]
        if not candidates:
            raise UserError("time_limit", self.seconds, "was too short to find a feasible set", "raise it or relax the constraints")
        return _settled(_better(surrogate, flips, sign, candidates, note), bound * scale)

    def _start(self, flips: Flips) -> tuple[Chosen | None, float]:
        """A feasible choice that maximises a linear bound, and an upper bound for all choices. Raises UserError if no choice is feasible."""
        chosen, bound = None, np.inf
        for slopes, constant in flips.linear_bounds():
            result = self._solve(slopes, np.ones(flips.n), [(self.limits.matrix, self.limits.lower, self.limits.upper)])
            if result.status == 2:
                raise _impossible(self.limits)
            chosen = chosen if result.x is None else result.x > 0.5
            bound = min(bound, _dual(result) + constant)
        return chosen, bound

    def _programme(self, flips: Flips) -> tuple[Chosen | None, float, bool]:
        """The set found by HiGHS (None if it found none in time), an upper bound, and whether HiGHS finished within its limits."""
        n = flips.n
        objective, facets, most = _facets(flips)
        added = len(objective) - n
        limits = (_padded(self.limits.matrix, added), self.limits.lower, self.limits.upper)
        result = self._solve(objective, np.concatenate([np.ones(n), np.zeros(added)]), [limits, (facets, np.full(len(most), -np.inf), most)])
        return (None if result.x is None else result.x[:n] > 0.5), _dual(result), result.status == 0

    def _solve(self, objective: Floats, integer: Floats, constraints: Sequence[tuple[Any, Any, Any]]) -> Any:
        """Maximise over 0 <= x <= 1; returns SciPy's result."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        options = {"time_limit": self.seconds, "mip_rel_gap": self.mip_gap}
        tied = [LinearConstraint(*constraint) for constraint in constraints if len(constraint[1])]
        return milp(-objective, integrality=integer, bounds=Bounds(0, 1), constraints=tied, options=options)


def _facets(flips: Flips) -> tuple[Floats, Any, Floats]:
    """The objective over x and the z of sets of order 2 and higher, and the constraints `matrix · (x, z) <= most` that link them.

    For each A ⊆ S, let d = sum_{i in A} x_i - sum_{i in S - A} x_i, which attains its maximum |A| at x = A. The constraints are z_S <= |A| - d for every
    A of even size if w > 0, and z_S >= d - |A| + 1 for every A of odd size if w < 0.
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
    """Add the best component repeatedly; returns None if this ends at an infeasible choice."""
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
    """Apply the best swap (or feasible addition or removal) repeatedly until none improves the objective."""
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
    """The best candidate, evaluated by the surrogate itself."""
    choices = np.stack([np.zeros(flips.n, dtype=np.bool_), *candidates])
    values = surrogate.predict(flips.masks(choices))
    gains = sign * (values - values[0])
    best = 1 + int(np.argmax(gains[1:]))
    return Selection(_members(choices[best]), float(values[best]), float(gains[best]), float(gains[best]), 0.0, exact=False, note=note)


def _dual(result: Any) -> float:
    """The upper bound proved by HiGHS."""
    return np.inf if result.mip_dual_bound is None else -float(result.mip_dual_bound)


def _settled(found: Selection, bound: float) -> Selection:
    """Add a bound to a selection; it is exact if the gap is within rounding."""
    bound = max(bound, found.objective)
    exact = bound - found.objective <= CLOSED * max(abs(bound), abs(found.objective), abs(found.value))
    return replace(found, bound=found.objective if exact else bound, gap=0.0 if exact else bound - found.objective, exact=exact)


def _members(chosen: Chosen) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _impossible(limits: _Limits) -> UserError:
    r = round(limits.upper[0])
    return UserError("r", r, "components cannot be chosen within the budgets and group limits", "lower r, raise the limits, or set at_most")


def _padded(matrix: Floats, columns: int) -> Any:
    """Append columns of zeros, as CSR."""
    from scipy.sparse import csr_array, hstack

    return hstack([csr_array(matrix), csr_array((len(matrix), columns))], format="csr")
