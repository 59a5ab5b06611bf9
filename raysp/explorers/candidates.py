"""The sets that a screening ablates: choosing the top k, ranking pairs and triples, and measuring deviations from additivity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import ceil, comb
from typing import TYPE_CHECKING

import numpy as np

from raysp.masks import Masks, Values
from raysp.sampling.draws import ablations, distinct, lookup
from raysp.spectral.fourier import ROUNDING, FourierSurrogate
from raysp.spectral.sets import Floats, from_tuples

if TYPE_CHECKING:
    import pyarrow as pa

#: Deviations from additivity by set; a single's is its effect.
Deviations = dict[tuple[int, ...], float]

#: Bounds of the automatic k: at least all of these few (their pairs are cheap), or this share; at most this share.
FEW, LEAST_SHARE, MOST_SHARE = 10, 0.1, 0.2

AUTOMATIC_RULE = (
    "Top k was chosen from the spread of the single effects: the effective number of components, (sum |Δ|)² / sum Δ², "
    f"held between {LEAST_SHARE:.0%} and {MOST_SHARE:.0%} of all and not below {FEW}."
)


def counted(top_k: float, n: int) -> int:
    """A fraction below 1 or a count from 1 as a count, at least 2 where there are as many."""
    return min(n, max(2, ceil(top_k * n) if top_k < 1 else int(top_k)))


def most_automatic(n: int) -> int:
    """The largest number of n components that `automatic` keeps."""
    return min(n, max(FEW, ceil(MOST_SHARE * n)))


def automatic(effects: Floats) -> int:
    """The number of effects that stand out: few when a few are large, more when they are alike."""
    n = len(effects)
    total, squares = float(np.abs(effects).sum()), float((effects**2).sum())
    effective = ceil(total**2 / squares - ROUNDING) if squares > 0 else n
    least = max(min(n, FEW), ceil(LEAST_SHARE * n))
    return min(max(effective, least), most_automatic(n))


def ranked_pairs(kept: np.ndarray, effects: Floats, limit: int | None = None) -> list[tuple[int, ...]]:
    """The first `limit` (all without one) pairs of the components kept, the largest product of single effects first.

    In a ranking of the components, pair (i, j) comes behind all pairs whose members rank no lower: (i + 1) j - i (i + 1) / 2 of them, itself included.
    So of the pairs only those need a look that have at most `limit`.
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
    """The sets of this order whose ablation is among the masks."""
    chosen = ~distinct(masks[(~masks).sum(axis=1) == order])
    return [tuple(row) for row in np.nonzero(chosen)[1].reshape(len(chosen), order).tolist()]


def ranked_triples(found: Deviations) -> list[tuple[int, ...]]:
    """Triples whose three pairs were measured, those whose pairs deviate most first."""
    pairs = {members: abs(value) for members, value in found.items() if len(members) == 2}
    partners: dict[int, set[int]] = {}
    for i, j in pairs:
        partners.setdefault(i, set()).add(j)
    triples = [(i, j, k) for i, j in pairs for k in sorted(partners.get(i, set()) & partners.get(j, set()))]
    strength = np.array([pairs[i, j] + pairs[i, k] + pairs[j, k] for i, j, k in triples])
    return [triples[row] for row in np.argsort(-strength, kind="stable")]


def measure(masks: Masks, values: Values, sets: Sequence[tuple[int, ...]]) -> Deviations:
    """The deviation of each of these sets (ascending in order) whose ablation, and that of all its subsets, is among the masks.

    deviation(T) = v(all) - v(all without T) - sum of the deviations of the proper non-empty subsets.
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
    """v(all without R) = v(all) - sum of the deviations of the subsets of R, as a Fourier sum."""
    return FourierSurrogate.from_deviations(n, float(values[lookup(masks, ablations(n, [()]))[0]]), found)


def table(n: int, found: Deviations) -> pa.Table:
    """The interactions measured, strongest first, in the columns of `FourierSurrogate.interactions`; their intervals have no width."""
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
