"""Sparse Fourier (parity) expansions of functions of masks, their predictions and their interaction indices.

v(m) = sum_S F(S) (-1)^{|m ∩ S|}. The coefficients may have a covariance; every index is linear in them, so confidence intervals follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, check_finite, check_masks, lookup
from raysp.spectral import walsh
from raysp.spectral.indices import UNIFORM, basis_weight, check_index, convert, removed_weight, sum_over_supersets
from raysp.spectral.points import Points
from raysp.spectral.sets import Floats, Sets, from_tuples, group_sum, merge, parities, positions, singletons, union
from raysp.spectral.tail_sum import CLOSED, TailSum

if TYPE_CHECKING:
    import pyarrow as pa
    from shapiq import InteractionValues

#: Entries of the largest array of parities held in memory while predicting.
CHUNK = 1 << 24
#: Columns of the covariance factor converted to an index per batch.
FACTOR_COLUMNS = 64
#: Half-width of a 95% interval, in standard errors.
Z95 = 1.959964
#: False discovery rate among the significant sets of an order.
FALSE_DISCOVERIES = 0.05
#: Relative magnitude below which a coefficient without a standard error is attributed to rounding.
ROUNDING = 1e-9
#: Size below which fitted coefficients come from the tolerances and penalties of the solvers, relative to the largest.
SOLVED = 1e-6


def _check_error(error: Floats | None, count: int) -> None:
    if error is not None and (error.ndim > 2 or len(error) != count):
        raise ValueError(f"error has shape {error.shape}; expected ({count},) or ({count}, r)")


class FourierSurrogate:
    """A sparse Fourier sum over `n` components.

    `sets` are the terms and `coefficients` (float64 `(len(sets),)`) their F(S). `error` describes the covariance of the coefficients: None if they are
    exact, standard errors `(len(sets),)` if they are independent, or a factor L `(len(sets), r)` of the covariance L Lᵀ.

    For a `keep_probability` p other than 1/2 the terms are products of φ_i(m) = (p - m_i) / sqrt(p (1 - p)), which are uncorrelated with unit variance
    when components are kept with probability p; every index is still exact.

    A surrogate may hold more than its terms. `tails` are sums over sets of all orders (see `TailSum`), of whose coefficients the terms include those of their own
    sets; `points` are measured values written into the surrogate (see `Points`). Predictions, and indices that have a closed form, include both.
    """

    def __init__(  # noqa: PLR0917  the parts of a surrogate
        self,
        sets: Sets,
        coefficients: Floats,
        error: Floats | None = None,
        keep_probability: float = UNIFORM,
        points: Points | None = None,
        tails: Sequence[TailSum] = (),
    ) -> None:
        if coefficients.shape != (len(sets),):
            raise ValueError(f"coefficients have shape {coefficients.shape}; expected ({len(sets)},) for {len(sets)} sets")
        _check_error(error, len(sets))
        self.n = sets.n
        self.sets = sets
        self.coefficients = coefficients
        self.error = error
        self.keep_probability = keep_probability
        self.points = points
        self.tails = tuple(tails)

    def __repr__(self) -> str:
        basis = "" if self.keep_probability == UNIFORM else f", keep_probability={self.keep_probability:g}"
        return f"FourierSurrogate(n={self.n}, terms={len(self.sets)}, max_order={self.sets.max_order}{basis})"

    def __len__(self) -> int:
        return len(self.sets)

    # ---- construction

    @classmethod
    def from_dict(cls, n: int, terms: Mapping[tuple[int, ...], float]) -> FourierSurrogate:
        """From a mapping of sets to coefficients. Raises ValueError for a component out of range or repeated within a set."""
        named = {tuple(sorted(members)): float(value) for members, value in terms.items()}
        sets = from_tuples(n, named)
        return cls(sets, np.array([named[members] for members in sets.tuples()], dtype=np.float64))

    @classmethod
    def from_values(cls, masks: object, values: object) -> FourierSurrogate:
        """The exact transform of a complete table: all 2^n masks (bool `(2^n, n)`, any order) and their values (`(2^n,)`).

        Works for at most 20 components. Raises ValueError if the table is incomplete and EvaluationError if a value is not finite.
        """
        array = np.asarray(masks)
        checked = check_masks(masks, array.shape[1] if array.ndim == 2 else 0)
        told = np.asarray(values, dtype=np.float64)
        n = checked.shape[1]
        if told.shape != (len(checked),):
            raise ValueError(f"values have shape {told.shape}; expected ({len(checked)},) for masks of shape {checked.shape}")
        if n > walsh.MAX_DENSE or not is_complete(checked):
            raise ValueError(f"masks have shape {checked.shape}; an exact transform needs all 2^n masks exactly once, with n at most {walsh.MAX_DENSE}")
        table = np.zeros(1 << n)
        table[walsh.numbers(checked)] = check_finite(checked, told)
        coefficients = walsh.walsh_hadamard(table) / len(table)
        sets, places = walsh.numbered_sets(n, np.arange(len(table)))
        return cls(sets, coefficients[places])

    @classmethod
    def from_deviations(cls, n: int, intact: float, deviations: Mapping[tuple[int, ...], float]) -> FourierSurrogate:
        """From deviations from additivity: v(all without R) = intact - sum of the deviations of the nonempty subsets of R.

        The deviation of a single component is its effect.
        """
        sets = from_tuples(n, [(), *deviations])
        values = np.array([deviations[members] if members else 0.0 for members in sets.tuples()], dtype=np.float64)
        terms, coefficients = sum_over_supersets(sets, values, removed_weight, range(sets.max_order + 1))
        coefficients[0] += intact
        return cls(terms, coefficients)

    @classmethod
    def combined(cls, parts: Sequence[FourierSurrogate], weights: Sequence[float]) -> FourierSurrogate:
        """The weighted sum of surrogates on the same components and in the same basis. The result has neither standard errors nor points."""
        blocks = [block for part in parts for block in part.sets.blocks]
        values = [weight * part.apart[slice(*_bounds(part.sets, k))] for part, weight in zip(parts, weights, strict=True) for k in range(len(part.sets.blocks))]
        tails = [tail.scaled(weight) for part, weight in zip(parts, weights, strict=True) for tail in part.tails]
        return cls._of(*merge(parts[0].n, blocks, values), parts[0].keep_probability, tails)

    @classmethod
    def _of(cls, sets: Sets, apart: Floats, keep_probability: float, tails: Sequence[TailSum]) -> FourierSurrogate:
        """The surrogate whose terms have these coefficients beside those of the tails."""
        whole = apart + sum((tail.coefficients(sets, keep_probability) for tail in tails), np.zeros(len(sets)))
        found = cls(sets, whole, keep_probability=keep_probability, tails=tails)
        vars(found)["apart"] = apart  # known, and slow to compute again from many centres
        return found

    @cached_property
    def apart(self) -> Floats:
        """The coefficients without those of the tails, float64 `(len(sets),)`."""
        return self.coefficients - sum((tail.coefficients(self.sets, self.keep_probability) for tail in self.tails), np.zeros(len(self.sets)))

    # ---- transformations

    def rebased(self, keep_probability: float = UNIFORM) -> FourierSurrogate:
        """The same function of masks in the basis of another P(keep). If the basis changes, standard errors are dropped."""
        if keep_probability == self.keep_probability:
            return self

        def weight(r: int, t: int) -> float:
            return basis_weight(r, t, self.keep_probability, keep_probability)

        sets, coefficients = sum_over_supersets(self.sets, self.apart, weight, range(self.sets.max_order + 1))
        return FourierSurrogate._of(sets, coefficients, keep_probability, self.tails).with_points(self.points)

    def with_error(self, error: Floats | None) -> FourierSurrogate:
        """The same coefficients with the given `error`."""
        _check_error(error, len(self.sets))
        found = copy(self)
        found.error = error
        return found

    def with_points(self, points: Points | None) -> FourierSurrogate:
        """The same sum with the given `points`."""
        found = copy(self)
        found.points = points
        return found

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> FourierSurrogate:
        """Only the terms, without tails and points, at the given ascending positions, or where a bool `(len(sets),)` is True."""
        return FourierSurrogate(self.sets.take(rows), self.coefficients[rows], None if self.error is None else self.error[rows], self.keep_probability)

    def strongest(self, count: int, always: int = 1) -> FourierSurrogate:
        """All terms up to order `always`, and the `count` strongest of those above it (order 0 is never dropped)."""
        size = np.where(self.sets.orders <= always, np.inf, np.abs(self.coefficients))
        count += int(np.sum(np.isinf(size)))
        return self.take(np.sort(np.argsort(-size, kind="stable")[:count]))

    # ---- predictions and indices

    def predict(self, masks: Masks) -> Values:
        """Predict the values (float64, `(m,)`) of masks (bool, `(m, n)`)."""
        checked = check_masks(masks, self.n)
        found = self._sum(checked) + sum((tail.predict(checked) for tail in self.tails), np.zeros(len(checked)))
        written = self._points_of(checked)
        if self.points is not None:
            found[written >= 0] += self.points.residuals[written[written >= 0]]
        return found

    def written(self, masks: Masks) -> NDArray[np.bool_]:
        """The masks (bool, `(m, n)`) whose measured value is written in, bool `(m,)`."""
        return self._points_of(check_masks(masks, self.n)) >= 0

    def _points_of(self, checked: Masks) -> NDArray[np.intp]:
        """The point of each mask, intp `(m,)`, -1 if there is none."""
        return lookup(self.points.masks, checked) if self.points else np.full(len(checked), -1, dtype=np.intp)

    def _sum(self, checked: Masks) -> Values:
        """The sum of the terms, less what of them is in the tails."""
        if self.keep_probability != UNIFORM:
            return FourierSurrogate(self.sets, self.apart, keep_probability=self.keep_probability).rebased().predict(checked)
        used = self._used()
        if len(used) <= walsh.MAX_DENSE and len(self.sets) * len(checked) > 4 << len(used):
            return self._table(used)[walsh.numbers(checked[:, used])]
        result = np.full(len(checked), float(self.apart.sum()))
        step = max(CHUNK // max(len(self.sets), 1), 1)
        for start in range(0, len(checked), step):
            odd = parities(self.sets, checked[start : start + step]).astype(np.float64)
            result[start : start + step] -= 2.0 * (self.apart @ odd)
        return result

    def single_effects(self) -> Floats:
        """v(all) - v(all without i) for every component, float64 `(n,)`.

        This is twice the sum of the terms with i, those of odd order negated (a kept component has sign -1), and what the points add.
        """
        if self.keep_probability != UNIFORM:
            return self.rebased().single_effects()
        effects = np.zeros(self.n)
        if self.points is not None:
            effects += self.points.index("additivity", singletons(self.n), 1, UNIFORM)[0][1:]
        for tail in self.tails:
            effects += tail.index("additivity", singletons(self.n), 1, UNIFORM)[1:]
        for k, rows, block in self.sets.spans():
            if k:
                turned = 2.0 * (-1) ** k * self.apart[rows]
                effects += np.bincount(block.ravel(), np.repeat(turned, k), minlength=self.n)
        return effects

    def interactions(self, index: str = "bii", max_order: int | None = None, min_order: int = 0) -> pa.Table:
        """Sets with their value in `index`: significant sets by decreasing |value|, then the others by what |value| exceeds the half-width of its interval by.

        An estimate with a wide interval, such as those of high orders, is not ahead of one that is better known.

        Columns: components list<int32>, order int32, index string, value double, lo and hi double (95% interval), significant bool (false discoveries
        are controlled over all sets of the same order, not only those found). Raises UserError for an unknown index.
        """
        import pyarrow as pa

        sets, values, errors = self.index(index, max_order, min_order)
        sure = significant(sets, values, errors, self._scale())
        widths = Z95 * errors
        strength = np.abs(values)
        order = np.lexsort((np.arange(len(values)), -strength, -np.where(sure, strength, strength - widths), ~sure))
        columns = {
            "components": sets.to_arrow(order),
            "order": pa.array(sets.orders[order], pa.int32()),
            "index": pa.array([index] * len(order), pa.string()),
            "value": pa.array(values[order], pa.float64()),
            "lo": pa.array((values - widths)[order], pa.float64()),
            "hi": pa.array((values + widths)[order], pa.float64()),
            "significant": pa.array(sure[order], pa.bool_()),
        }
        return pa.table(columns)

    def index(self, index: str, max_order: int | None = None, min_order: int = 0) -> tuple[Sets, Floats, Floats]:
        """Sets, their values in `index` and their standard errors, float64 `(len(sets),)` each, in the order of the sets."""
        check_index(index)
        closed, p, top = index in CLOSED, self.keep_probability, max(self.sets.max_order if max_order is None else max_order, 0)
        sets, values = convert(index, self.sets, self.apart if closed else self.coefficients, max_order, min_order, keep_probability=p)
        errors = self._errors(index, max_order, min_order, len(sets))
        if not self.tails and not self.points:
            return sets, values, errors
        if self.points:
            together = union(sets, self._written(index, max_order, min_order))
            place, own, widths = positions(together, sets), values, errors
            sets, values, errors = together, np.zeros(len(together)), self._unknown(together, sets, errors)
            values[place], errors[place] = own, widths
            added, corrected = self.points.index(index, sets, top, p)
            values, errors = values + added, np.hypot(errors, corrected)
        for tail in self.tails if closed else ():
            values = values + tail.index(index, sets, top, p)
        return sets, values, errors

    def _written(self, index: str, max_order: int | None, min_order: int) -> Sets:
        """The single components and the removed pairs among the points, as far as their orders are wanted: no other set is likely to lack a term."""
        pairs = ~self.points.masks[(~self.points.masks).sum(axis=1) == 2] if self.points else np.zeros((0, self.n), dtype=np.bool_)
        found = union(singletons(self.n), from_tuples(self.n, np.nonzero(pairs)[1].reshape(-1, 2).tolist()))
        highest = 1 if index in {"sv", "bv"} else found.max_order if max_order is None else max_order
        return found.take((found.orders >= max(min_order, 1)) & (found.orders <= highest))

    def _unknown(self, wanted: Sets, known: Sets, errors: Floats) -> Floats:
        """Standard errors for sets without a term, float64 `(len(wanted),)`: as wide as those of sets of the same order, or as Banzhaf interactions of terms would have."""
        typical = float(np.median(self.error)) if self.error is not None and self.error.ndim == 1 and len(self.error) else 0.0
        found: Floats = typical * np.power(2.0, wanted.orders, dtype=np.float64)
        for order in range(known.max_order + 1):
            if (there := known.orders == order).any():
                found[wanted.orders == order] = np.median(errors[there])
        return found

    def _errors(self, index: str, max_order: int | None, min_order: int, count: int) -> Floats:
        """The standard errors of an index of `count` sets, float64 `(count,)`."""
        p = self.keep_probability
        if self.error is None:
            return np.zeros(count)
        if self.error.ndim == 1:
            return np.sqrt(convert(index, self.sets, self.error**2, max_order, min_order, squared=True, keep_probability=p)[1])
        variance = np.zeros(count)
        for start in range(0, self.error.shape[1], FACTOR_COLUMNS):
            part = convert(index, self.sets, self.error[:, start : start + FACTOR_COLUMNS], max_order, min_order, keep_probability=p)[1]
            variance += np.einsum("ij,ij->i", part, part)
        return np.sqrt(variance)

    def to_shapiq(self, index: str = "fsii", max_order: int | None = None, min_order: int = 0) -> InteractionValues:
        """Convert the interactions to shapiq's `InteractionValues`; see `shapiq_values.to_shapiq`."""
        from raysp.spectral.shapiq_values import to_shapiq

        return to_shapiq(self, index, max_order, min_order)

    def terms(self) -> dict[tuple[int, ...], float]:
        """The coefficients by set, in the surrogate's own basis."""
        return dict(zip(self.sets.tuples(), self.coefficients.tolist(), strict=True))

    def energy(self) -> Floats:
        """The sum of F(S)² by order, float64 `(max_order + 1,)`.

        From order 1 on, it sums to the variance over masks drawn with the surrogate's own P(keep) (Parseval).
        """
        return group_sum(self.coefficients**2, self.sets.orders.astype(np.intp), self.sets.max_order + 1)

    def _scale(self) -> float:
        return float(np.abs(self.coefficients).max(initial=0.0))

    def _used(self) -> NDArray[np.int32]:
        blocks = [block.ravel() for block in self.sets.blocks]
        return np.unique(np.concatenate(blocks)) if blocks else np.zeros(0, dtype=np.int32)

    def _table(self, used: NDArray[np.int32]) -> Floats:
        """The values of all masks over the components in use."""
        rank = np.zeros(self.n, dtype=np.int32)
        rank[used] = np.arange(len(used))
        table = np.zeros(1 << len(used))
        table[walsh.set_numbers(Sets(len(used), tuple(rank[block] for block in self.sets.blocks)))] = self.apart
        return walsh.walsh_hadamard(table)


def is_complete(masks: Masks) -> bool:
    """Whether the masks are all 2^n masks, each exactly once."""
    m, n = masks.shape
    return n <= walsh.MAX_DENSE and m == 1 << n and len(np.unique(walsh.numbers(masks))) == m


def significant(sets: Sets, values: Floats, errors: Floats, scale: float) -> NDArray[np.bool_]:
    """Which values differ significantly from zero, bool `(len(sets),)`.

    Benjamini-Hochberg within each order. All C(n, order) sets of an order count as tests: the given sets were selected because they looked strong, so
    those not selected must be included in the correction. Orders 2 and higher share one error rate. Without standard errors, every value above
    rounding is significant; with them, none that is below what a fit resolves.
    """
    if not np.any(errors > 0):
        return np.abs(values) > ROUNDING * scale
    from scipy.special import erfc

    found = np.zeros(len(values), dtype=np.bool_)
    probability = erfc(np.abs(values) / np.where(errors > 0, errors, np.inf) / np.sqrt(2.0))
    shared = max(len([k for k, _, _ in sets.spans() if k > 1]), 1)
    for k, where, block in sets.spans():
        level = FALSE_DISCOVERIES / (shared if k > 1 else 1)
        ranked = np.sort(probability[where])
        passed = np.flatnonzero(ranked <= level * np.arange(1, len(block) + 1) / max(comb(sets.n, k), 1))
        if len(passed):
            found[where] = probability[where] <= ranked[passed[-1]]
    # Where a fit is exact but for the tolerances of its solvers, its standard errors are as small as they are, and no measure of them.
    return found & (np.abs(values) > SOLVED * scale)


def _bounds(sets: Sets, order: int) -> tuple[int, int]:
    """The half-open range of positions of the sets of an order."""
    start = sum(len(block) for block in sets.blocks[:order])
    return start, start + len(sets.blocks[order])
