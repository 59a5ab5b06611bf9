"""The candidate sets of a screening: selection of the top k, ranking of pairs and triples, and deviations from additivity."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import ceil, comb
from typing import TYPE_CHECKING

import numpy as np

from raysp.masks import Masks, Values, lookup
from raysp.sampling.ablations import ablations
from raysp.sampling.matching import distinct
from raysp.spectral.fourier import ROUNDING, FourierSurrogate
from raysp.spectral.sets import Floats, from_tuples

if TYPE_CHECKING:
    import pyarrow as pa

#: A set of components, ascending.
Members = tuple[int, ...]

#: Deviations from additivity by set; the deviation of a single component is its effect.
Deviations = dict[Members, float]

#: Bounds of the automatic k: at least this number (their pairs are cheap) or share of the components, and at most this share.
FEW, LEAST_SHARE, MOST_SHARE = 10, 0.1, 0.2

AUTOMATIC_RULE = (
    "Top k was chosen from the spread of the single effects: it is the effective number of components, (sum |Δ|)² / sum Δ², "
    f"limited to between {LEAST_SHARE:.0%} and {MOST_SHARE:.0%} of all components and not below {FEW}."
)


def counted(top_k: float, n: int) -> int:
    """Convert `top_k`, a fraction below 1 or a count from 1, to a count of at least 2 (if n >= 2) and at most n."""
    return min(n, max(2, ceil(top_k * n) if top_k < 1 else int(top_k)))


def most_automatic(n: int) -> int:
    """The largest number of components, out of n, that `automatic` keeps."""
    return min(n, max(FEW, ceil(MOST_SHARE * n)))


def automatic(effects: Floats) -> int:
    """Choose the number of components to keep from the spread of their effects: few if a few effects dominate, more if effects are similar."""
    n = len(effects)
    total, squares = float(np.abs(effects).sum()), float((effects**2).sum())
    effective = ceil(total**2 / squares - ROUNDING) if squares > 0 else n
    least = max(min(n, FEW), ceil(LEAST_SHARE * n))
    return min(max(effective, least), most_automatic(n))


def ranked_pairs(kept: np.ndarray, effects: Floats, limit: int | None = None) -> list[tuple[int, ...]]:
    """The first `limit` (None: all) pairs of the kept components, by decreasing product of single effects.

    With components ranked by effect, all pairs whose members rank at least as high precede pair (i, j): (i + 1) j - i (i + 1) / 2 of them, including the
    pair itself. Only pairs for which this number is at most `limit` need to be considered.
    """
    ranked = np.sort(kept)
    ranked = ranked[np.argsort(-np.abs(effects[ranked]), kind="stable")]
    count = len(ranked)
    most = comb(count, 2) if limit is None else min(limit, comb(count, 2))
    pairs: list[np.ndarray] = []
    for i in range(count - 1):
        last = min(count - 1, (most + i * (i + 1) // 2) // (i + 1))
        if last <= i:
            break
        pairs.append(np.stack([np.full(last - i, ranked[i]), ranked[i + 1 : last + 1]], axis=1))
    if not pairs:
        return []
    chosen = np.sort(np.concatenate(pairs), axis=1)
    order = np.lexsort((chosen[:, 1], chosen[:, 0], -np.abs(effects[chosen[:, 0]] * effects[chosen[:, 1]])))
    return [(i, j) for i, j in chosen[order[:most]].tolist()]


def removed_sets(masks: Masks, order: int) -> list[tuple[int, ...]]:
    """The sets of the given order whose ablation is among the masks."""
    chosen = ~distinct(masks[(~masks).sum(axis=1) == order])
    return [tuple(row) for row in np.nonzero(chosen)[1].reshape(len(chosen), order).tolist()]


def pairs_among(components: Sequence[int]) -> list[Members]:
    """All pairs of these components, in their order."""
    return [(min(i, j), max(i, j)) for place, j in enumerate(components) for i in components[:place]]


def ranked_triples(n: int, pairs: Mapping[Members, float], limit: int | None = None) -> list[Members]:
    """The first `limit` (None: all) triples of n components whose three pairs are given, by decreasing sum of their absolute deviations."""
    sizes = np.full((n, n), -np.inf)  # as a sum with a pair that is missing is -inf as well
    for (i, j), value in pairs.items():
        sizes[i, j] = sizes[j, i] = abs(value)
    best, strength = np.zeros((0, 3), dtype=np.intp), np.zeros(0)
    for i in range(n - 2):
        later = sizes[i, i + 1 :]
        sums = later[:, None] + later[None, :] + sizes[i + 1 :, i + 1 :]
        j, k = np.nonzero(np.triu(np.isfinite(sums), 1))
        best = np.concatenate([best, np.stack([np.full(len(j), i), i + 1 + j, i + 1 + k], axis=1)])
        strength = np.concatenate([strength, sums[j, k]])
        order = np.argsort(-strength, kind="stable")[:limit]
        best, strength = best[order], strength[order]
    return [(i, j, k) for i, j, k in best.tolist()]


def measure(masks: Masks, values: Values, sets: Sequence[tuple[int, ...]]) -> Deviations:
    """The deviations from additivity of those `sets` (ascending in order) whose ablation, and that of all their subsets, is among the masks.

    deviation(T) = v(all) - v(all without T) - sum of the deviations of the proper nonempty subsets of T.
    """
    n = masks.shape[1]
    rows = lookup(masks, ablations(n, [(), *sets]))
    found: Deviations = {}
    for members, row in zip(sets, rows[1:], strict=True):
        parts = [part for size in range(1, len(members)) for part in itertools.combinations(members, size)]
        if row >= 0 and all(part in found for part in parts):
            found[members] = float(values[rows[0]] - values[row]) - sum(found[part] for part in parts)
    return found


def surrogate(n: int, masks: Masks, values: Values, found: Deviations) -> FourierSurrogate:
    """The function v(all without R) = v(all) - sum of the deviations of the subsets of R, as a Fourier sum."""
    return FourierSurrogate.from_deviations(n, float(values[lookup(masks, ablations(n, [()]))[0]]), found)


def mean_effects(n: int, found: Deviations, removed: float) -> Floats:
    """The mean effect of each component over contexts from which every other one is removed with this probability, float64 `(n,)`.

    In a context without R, the effect of i is the sum of the deviations of i together with the subsets of R.
    """
    means = np.zeros(n)
    for members, value in found.items():
        means[list(members)] += value * removed ** (len(members) - 1)
    return means


def table(n: int, found: Deviations) -> pa.Table:
    """Tabulate the measured interactions, strongest first, with the columns of `FourierSurrogate.interactions` and intervals of zero width."""
    import pyarrow as pa

    sets = from_tuples(n, [members for members in found if len(members) > 1])
    values = np.array([found[members] for members in sets.tuples()], dtype=np.float64)
    order = np.argsort(-np.abs(values), kind="stable")
    scale = max((abs(value) for value in found.values()), default=0.0)
    columns = {
        "components": sets.to_arrow(order),
        "order": pa.array(sets.orders[order], pa.int32()),
        "index": pa.array(["additivity"] * len(order), pa.string()),
        "value": pa.array(values[order], pa.float64()),
        "lo": pa.array(values[order], pa.float64()),
        "hi": pa.array(values[order], pa.float64()),
        "significant": pa.array(np.abs(values[order]) > ROUNDING * scale, pa.bool_()),
    }
    return pa.table(columns)
