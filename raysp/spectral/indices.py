"""Interaction indices from sparse Fourier coefficients.

Each index is a linear map I(T) = sum_{R ⊇ T} w(|R|, |T|) F(R) whose weights depend only on the two orders (the formulas are derived in the shared
references from the Möbius form I(S) = (-2)^|S| sum_{R ⊇ S} F(R)). A single routine therefore computes all of them, for any number of columns of
coefficients at once (values, or a factor of their covariance), in one pass over the subsets of the terms.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.spectral.sets import Block, Floats, Sets, merge, subsets
from raysp.spectral.walsh import MAX_DENSE, numbered_sets, set_numbers, superset_sums

#: The indices by name, each with a one-line description.
INDICES: dict[str, str] = {
    "fourier": "coefficient of the parity of the set",
    "mobius": "Möbius coefficient (Harsanyi dividend): what keeping the set adds beyond its subsets, starting from the empty mask",
    "bii": "Banzhaf interaction: mean joint effect over all contexts",
    "sii": "Shapley interaction",
    "stii": "Shapley-Taylor interaction of order max_order",
    "fbii": "faithful Banzhaf interaction of order max_order",
    "fsii": "faithful Shapley interaction of order max_order",
    "sv": "Shapley value of single components",
    "bv": "Banzhaf value of single components",
    "wbii": "weighted Banzhaf interaction: mean joint effect over contexts that keep each component as often as the measured masks do",
    "additivity": "deviation from additivity around the intact input: the effect of removing the set beyond that of its subsets",
}

#: Maximum number of subsets enumerated by one conversion (each takes about 40 bytes).
MAX_SUBSETS = 40_000_000

#: P(keep) of the plain Fourier basis.
UNIFORM = 0.5

Weight = Callable[[int, int], float]


def check_index(index: str) -> str:
    """Return the index; raises UserError, listing the known ones, if it is unknown."""
    if index not in INDICES:
        raise UserError("index", index, "is not an interaction index", f"use one of {', '.join(INDICES)}")
    return index


def convert(
    index: str,
    sets: Sets,
    coefficients: Floats,
    max_order: int | None = None,
    min_order: int = 0,
    *,
    squared: bool = False,
    keep_probability: float = 0.5,
) -> tuple[Sets, Floats]:
    """Convert Fourier coefficients (`(len,)`, or `(len, c)` for c functions) to an index, for every set where it can be nonzero.

    `keep_probability` is the P(keep) of the basis of the coefficients (see `basis_weight`). With `squared` the weights are squared, which maps variances
    of independent coefficients to variances of the index. `max_order` bounds the orders returned and is the order k of `stii`, `fbii` and `fsii` (None:
    the largest order of the terms). Raises UserError for an unknown index or if the terms have too many subsets to enumerate.
    """
    check_index(index)
    top = max(sets.max_order if max_order is None else max_order, 0)
    lowest = 1 if index in {"sv", "bv", "additivity"} else 0
    highest = 1 if index in {"sv", "bv"} else top
    weight = _weights(index, top, 2 if squared else 1, keep_probability)
    wanted = range(max(min_order, lowest), min(highest, sets.max_order) + 1)
    if index == "wbii" or (keep_probability == UNIFORM and index in {"fourier", "bii", "bv"}):
        return _diagonal(sets, coefficients, weight, wanted)
    return sum_over_supersets(sets, coefficients, weight, wanted)


def sum_over_supersets(sets: Sets, coefficients: Floats, weight: Weight, orders: range) -> tuple[Sets, Floats]:
    """Compute sum_{R ⊇ T} weight(|R|, |T|) coefficients(R) for every subset T of the given sets whose order is in `orders`."""
    pairs = sum(len(block) * comb(k, t) for k, block in enumerate(sets.blocks) for t in orders if t <= k)
    used = np.unique(np.concatenate([block.ravel() for block in sets.blocks])) if sets.blocks else np.zeros(0, dtype=np.int32)
    if len(used) <= MAX_DENSE and pairs > (len(used) + 1) ** 2 << len(used):
        return _dense(sets, coefficients, weight, orders, used)
    if pairs > MAX_SUBSETS:
        raise UserError("max_order", max(orders, default=0), f"would enumerate {pairs:,} subsets", "lower max_order")
    blocks: list[Block] = []
    values: list[Floats] = []
    for r, where, block in sets.spans():
        for t in orders:
            factor = weight(r, t) if t <= r else 0.0
            if factor:
                blocks.append(subsets(block, t))
                values.append(np.repeat(factor * coefficients[where], comb(r, t), axis=0))
    if not blocks:
        return Sets(sets.n, ()), np.zeros((0, *coefficients.shape[1:]))
    return merge(sets.n, blocks, values)


def _diagonal(sets: Sets, coefficients: Floats, weight: Weight, orders: range) -> tuple[Sets, Floats]:
    """Indices that are a multiple of each set's own coefficient."""
    own = sets.orders
    keep = (own >= orders.start) & (own < orders.stop)
    factors = np.array([weight(k, k) for k in range(sets.max_order + 1)])[own[keep]]
    return sets.take(keep), coefficients[keep] * factors.reshape(-1, *([1] * (coefficients.ndim - 1)))


def _dense(sets: Sets, coefficients: Floats, weight: Weight, orders: range, used: NDArray[np.int32]) -> tuple[Sets, Floats]:
    """`sum_over_supersets` on a table of all subsets of the components in use, with one superset sum for each order of R."""
    rank = np.zeros(sets.n, dtype=np.int32)
    rank[used] = np.arange(len(used))
    local = Sets(len(used), tuple(rank[block] for block in sets.blocks))
    size = 1 << len(used)
    popcount = np.bitwise_count(np.arange(size))
    chosen = np.flatnonzero((popcount >= orders.start) & (popcount < orders.stop))
    result = np.zeros((len(chosen), *coefficients.shape[1:]))
    for r, where, block in local.spans():
        table = np.zeros((size, *coefficients.shape[1:]))
        table[set_numbers(Sets(local.n, (*(b[:0] for b in local.blocks[:r]), block)))] = coefficients[where]
        factors = np.array([weight(r, t) if t <= r else 0.0 for t in range(len(used) + 1)])[popcount[chosen]]
        result += superset_sums(table)[chosen] * factors.reshape(-1, *([1] * (coefficients.ndim - 1)))
    family, places = numbered_sets(local.n, chosen)
    return Sets(sets.n, tuple(used[block] for block in family.blocks)), result[places]


def basis_weight(r: int, t: int, source: float, target: float = UNIFORM) -> float:
    """The weight with which a coefficient of order r in the basis of P(keep) = `source` enters each subset of order t in that of `target`.

    With σ² = p (1 - p) and φ_i = (p - m_i) / σ, a factor of one basis is (p - q) / σ_p + (σ_q / σ_p) times that of the other.
    """
    spread, wanted = sqrt(source * (1 - source)), sqrt(target * (1 - target))
    return float(((source - target) / spread) ** (r - t) * (wanted / spread) ** t)


def _weights(index: str, k: int, power: int, keep_probability: float) -> Weight:
    """The weights w(r, t) of an index of order k, raised to a power, for coefficients in the basis of `keep_probability`."""
    if index == "wbii":
        return lambda r, t: (-1.0 / sqrt(keep_probability * (1 - keep_probability))) ** (t * power) if r == t else 0.0
    if keep_probability == UNIFORM:
        return lambda r, t: _weight(index, k, r, t) ** power
    return lambda r, t: _biased_weight(index, k, r, t, keep_probability) ** power


@lru_cache(maxsize=65536)
def _biased_weight(index: str, k: int, r: int, t: int, keep_probability: float) -> float:
    """w(r, t) via the uniform basis: a sum over the orders s of the sets between T and R."""
    return sum(comb(r - t, s - t) * basis_weight(r, s, keep_probability) * _weight(index, k, s, t) for s in range(t, r + 1))


@lru_cache(maxsize=65536)
def _weight(index: str, k: int, r: int, t: int) -> float:
    if index == "fourier":
        return float(r == t)
    if index in {"bii", "bv"}:
        return float((-2) ** t if r == t else 0)
    if index == "additivity":
        return float(-((-2) ** t) * (-1) ** r)
    exact = sum((comb(r - t, s - t) * (-2) ** s * mobius_weight(index, k, s, t) for s in range(t, r + 1)), Fraction(0))
    return float(exact)


def mobius_weight(index: str, k: int, s: int, t: int) -> Fraction:
    """The weight of the Möbius coefficient of a set of order s in the value of a subset of order t, in an index that is defined by these coefficients."""
    if index in {"sii", "sv"}:
        return Fraction(1, s - t + 1)
    if index == "mobius" or (index in {"fbii", "fsii"} and s <= k):
        return Fraction(int(s == t))
    if index == "stii":
        return Fraction(1, comb(s, k)) if t == k else Fraction(int(s == t))
    sign = (-1) ** (k - t)
    if index == "fbii":
        return Fraction(sign * comb(s - t - 1, k - t), 2 ** (s - t))
    return Fraction(sign * t * comb(k, t) * comb(s - 1, k), (k + t) * comb(s + k - 1, k + t))


def removed_weight(r: int, _t: int) -> float:
    """The weight that converts deviations from additivity, v(all without R) = v(all) - sum_{T ⊆ R} dev(T), to Fourier coefficients.

    prod_{i in T} (1 - m_i) = 2^-|T| sum_{S ⊆ T} χ_S(m), as 1 - m_i = (1 + χ_i(m)) / 2; so F(S) = -sum_{T ⊇ S} 2^-|T| dev(T).
    """
    return -(0.5**r)
