"""Boosted trees on masks, and their exact Fourier form.

A tree that splits on component i with children L (lower side) and R has the transform (L + R)/2 + (L - R)/2 χ_i, applied recursively
(ProxySPEX, step 3). Seen from a leaf: it adds value / 2^d times every product of ±χ over the d components of its path, so a booster's
transform is one scatter over (leaf, subset of its path).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.game import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Block, Floats, merge, subset_columns, subsets


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of an ensemble over masks, in groups of equal path length d.

    `paths[d]` int32 `(l_d, d)`: the distinct components decided on, ascending; `kept[d]` bool `(l_d, d)`: whether the leaf is reached with
    the component kept; `values[d]` float64 `(l_d,)`.
    """

    n: int
    paths: tuple[Block, ...]
    kept: tuple[NDArray[np.bool_], ...]
    values: tuple[Floats, ...]


def leaves_transform(leaves: Leaves) -> FourierSurrogate:
    """The exact Fourier form of the sum of the trees."""
    blocks: list[Block] = []
    values: list[Floats] = []
    for d, (paths, kept, value) in enumerate(zip(leaves.paths, leaves.kept, leaves.values, strict=True)):
        signs = np.where(kept, -1.0, 1.0) if d else np.zeros((len(value), 0))
        for size in range(d + 1):
            columns = subset_columns(d, size)
            blocks.append(subsets(paths, size))
            values.append((signs[:, columns].prod(axis=2) * (value / 2.0**d)[:, None]).ravel())
    sets, coefficients = merge(leaves.n, blocks, values)
    return FourierSurrogate(sets, coefficients)


def booster_leaves(booster: Any, n: int, rounds: int | None = None) -> Leaves:
    """The leaves of the first `rounds` trees (all without) of a LightGBM booster trained on numeric 0/1 columns.

    A threshold at or above 1 or below 0 sends every mask one way; such splits, and a component met twice on a path, are resolved here.
    """
    collected: dict[int, list[tuple[tuple[int, ...], tuple[bool, ...], float]]] = {}
    dump = booster.dump_model(num_iteration=-1 if rounds is None else rounds)
    for tree in dump["tree_info"]:
        stack: list[tuple[dict[str, Any], dict[int, bool]]] = [(tree["tree_structure"], {})]
        while stack:
            node, decided = stack.pop()
            if "leaf_value" in node:
                path = tuple(sorted(decided))
                collected.setdefault(len(path), []).append((path, tuple(decided[i] for i in path), float(node["leaf_value"])))
                continue
            feature, threshold = int(node["split_feature"]), float(node["threshold"])
            for kept in (False, True):
                if decided.get(feature, kept) == kept:
                    child = node["left_child"] if float(kept) <= threshold else node["right_child"]
                    stack.append((child, {**decided, feature: kept}))
    depth = max(collected, default=0)
    rows = [collected.get(d, []) for d in range(depth + 1)]
    return Leaves(
        n,
        tuple(np.array([path for path, _, _ in group], dtype=np.int32).reshape(len(group), d) for d, group in enumerate(rows)),
        tuple(np.array([kept for _, kept, _ in group], dtype=np.bool_).reshape(len(group), d) for d, group in enumerate(rows)),
        tuple(np.array([value for _, _, value in group], dtype=np.float64) for group in rows),
    )


def booster_transform(booster: Any, n: int, rounds: int | None = None) -> FourierSurrogate:
    """The exact Fourier form of the first `rounds` trees (all without) of a LightGBM booster on masks."""
    return leaves_transform(booster_leaves(booster, n, rounds))


def train_booster(
    masks: Masks, values: Values, held_out: tuple[Masks, Values] | None, *, depth: int = 3, rate: float = 0.1, rounds: int = 1000, patience: int = 20, seed: int = 0, threads: int = 2
) -> tuple[Any, int]:
    """A LightGBM booster on masks (bool `(m, n)`) and values (`(m,)`), and the number of its rounds that predict the held-out part best.

    Without a held-out part all `rounds` are run. Deterministic in `seed`.
    """
    import lightgbm

    parameters = {
        "objective": "regression", "learning_rate": rate, "max_depth": depth, "num_leaves": 2**depth, "min_data_in_leaf": 5, "max_bin": 2, "min_data_in_bin": 1,
        "feature_pre_filter": False, "verbosity": -1, "seed": seed, "deterministic": True, "force_row_wise": True, "num_threads": threads,
    }  # fmt: skip
    train = lightgbm.Dataset(masks.astype(np.float32), values, params={"max_bin": 2, "min_data_in_bin": 1, "feature_pre_filter": False, "verbosity": -1})
    if held_out is None:
        return lightgbm.train(parameters, train, rounds), rounds
    valid = lightgbm.Dataset(held_out[0].astype(np.float32), held_out[1], reference=train)
    stop = lightgbm.early_stopping(patience, verbose=False)
    booster = lightgbm.train(parameters, train, rounds, valid_sets=[valid], callbacks=[stop])
    return booster, int(booster.best_iteration)
