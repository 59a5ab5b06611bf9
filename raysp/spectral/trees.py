"""Boosted trees on masks, and their exact Fourier form.

A tree that splits on component i with children L (lower side) and R has the transform (L + R)/2 + (L - R)/2 χ_i, applied recursively (ProxySPEX, step
3). Equivalently, each leaf contributes value / 2^d times every product of ±χ over subsets of the d components on its path, so the transform of a booster
is a single scatter over pairs (leaf, subset of its path).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import Exam, weighted_variance
from raysp.spectral.sets import Block, Floats, merge, subset_columns, subsets

#: Smallest decrease of the held-out error, as a share of the variance, that early stopping counts as progress.
LEAST_PROGRESS = 1e-5


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of an ensemble over masks, grouped by path length d.

    `paths[d]` int32 `(l_d, d)`: the distinct components on the path, ascending; `kept[d]` bool `(l_d, d)`: whether the leaf is reached with the component
    kept; `values[d]` float64 `(l_d,)`: the leaf values.
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
    """Extract the leaves of the first `rounds` trees (None: all) of a LightGBM booster trained on numeric 0/1 columns.

    All trees are traversed together, level by level. Splits with a threshold below 0 or at or above 1, which send every mask the same way, and repeated
    splits on a component within a path are resolved here.
    """
    nodes = _read_nodes(booster.model_to_string(num_iteration=-1 if rounds is None else rounds))
    place = nodes.roots
    path, kept = np.zeros((len(place), 0), dtype=np.int32), np.zeros((len(place), 0), dtype=np.bool_)
    groups: dict[int, list[tuple[Block, NDArray[np.bool_], Floats]]] = {}
    while len(place):
        ended = place < 0
        if ended.any():
            _collect(groups, path[ended], kept[ended], nodes.values[~place[ended]])
        place, path, kept = place[~ended], path[~ended], kept[~ended]
        feature = nodes.features[place]
        met = path == feature[:, None]
        open_to = [~met.any(axis=1) | (met & (kept == side)).any(axis=1) for side in (False, True)]
        path = np.concatenate([np.concatenate([path, feature[:, None]], axis=1)[side] for side in open_to])
        column = np.concatenate([np.full(int(side.sum()), value) for side, value in zip(open_to, (False, True), strict=True)])
        kept = np.concatenate([np.concatenate([kept[side] for side in open_to]), column[:, None]], axis=1)
        place = np.concatenate([nodes.children[place[side], int(value)] for side, value in zip(open_to, (False, True), strict=True)])
    order = range(max(groups, default=0) + 1)
    empty: tuple[Block, NDArray[np.bool_], Floats] = (np.zeros((0, 0), dtype=np.int32), np.zeros((0, 0), dtype=np.bool_), np.zeros(0))
    rows = [groups.get(d) or [(empty[0].reshape(0, d), empty[1].reshape(0, d), empty[2])] for d in order]
    return Leaves(
        n,
        tuple(np.concatenate([group[0] for group in each]) for each in rows),
        tuple(np.concatenate([group[1] for group in each]) for each in rows),
        tuple(np.concatenate([group[2] for group in each]) for each in rows),
    )


@dataclass(frozen=True, slots=True)
class _Nodes:
    """All splits of an ensemble.

    `features` `(s,)` are the split components. `children` `(s, 2)` are the successors for masks without and with the component: the index of a split, or
    ~leaf for an index `leaf` into `values`. `roots` `(t,)` are indexed in the same way.
    """

    features: Block
    children: NDArray[np.int64]
    values: Floats
    roots: NDArray[np.int64]


def _read_nodes(text: str) -> _Nodes:
    """Parse the splits from LightGBM's text format, where a negative child c is leaf ~c of the same tree."""
    features: list[str] = []
    thresholds: list[str] = []
    leaves: list[str] = []
    children: list[NDArray[np.int64]] = []
    roots: list[int] = []
    for tree in text.split("\nTree=")[1:]:
        lines = dict(line.split("=", 1) for line in tree.split("\n\n")[0].split("\n") if "=" in line)
        splits = lines.get("split_feature", "").split()
        roots.append(len(features) if splits else ~len(leaves))
        if splits:
            both = np.array([lines["left_child"].split(), lines["right_child"].split()], dtype=np.int64).T
            children.append(np.where(both >= 0, both + len(features), both - len(leaves)))
        features += splits
        thresholds += lines.get("threshold", "").split()
        leaves += lines["leaf_value"].split()
    cut = np.array(thresholds, dtype=np.float64)
    sides = np.concatenate(children) if children else np.zeros((0, 2), dtype=np.int64)
    removed, kept = np.where(cut >= 0, sides[:, 0], sides[:, 1]), np.where(cut >= 1, sides[:, 0], sides[:, 1])
    return _Nodes(np.array(features, dtype=np.int32), np.stack([removed, kept], axis=1), np.array(leaves, dtype=np.float64), np.array(roots, dtype=np.int64))


def _collect(groups: dict[int, list[tuple[Block, NDArray[np.bool_], Floats]]], path: Block, kept: NDArray[np.bool_], values: Floats) -> None:
    """Group leaves by the number of distinct components on their path; each path becomes ascending and free of repetitions."""
    order = np.argsort(path, axis=1, kind="stable")
    path, kept = np.take_along_axis(path, order, axis=1), np.take_along_axis(kept, order, axis=1)
    first = np.ones(path.shape, dtype=np.bool_)
    first[:, 1:] = path[:, 1:] != path[:, :-1]
    lengths = first.sum(axis=1)
    for d in np.unique(lengths).tolist():
        rows = lengths == d
        chosen = (path[rows][first[rows]].reshape(-1, d) if d else path[rows][:, :0], kept[rows][first[rows]].reshape(-1, d) if d else kept[rows][:, :0])
        groups.setdefault(d, []).append((*chosen, values[rows]))


def booster_transform(booster: Any, n: int, rounds: int | None = None) -> FourierSurrogate:
    """The exact Fourier form of the first `rounds` trees (None: all) of a LightGBM booster on masks."""
    return leaves_transform(booster_leaves(booster, n, rounds))


def train_booster(
    masks: Masks,
    values: Values,
    held_out: Exam | None,
    *,
    weights: Values | None = None,
    depth: int = 3,
    rate: float = 0.1,
    rounds: int = 1000,
    patience: int = 20,
    seed: int = 0,
    threads: int = 1,
) -> tuple[Any, int]:
    """Train a LightGBM booster on masks (bool `(m, n)`), values `(m,)` and weights (`(m,)`; None: equal).

    Returns the booster and the number of rounds that predict the held-out part best; without a held-out part, all `rounds` are used. Deterministic in
    `seed`. The default is one thread: on data of this size a second one is not faster, and when another process occupies its core, LightGBM's threads
    wait for each other a hundred times longer than they compute.
    """
    import lightgbm

    parameters = {
        "objective": "regression", "learning_rate": rate, "max_depth": depth, "num_leaves": 2**depth, "min_data_in_leaf": 5, "max_bin": 2, "min_data_in_bin": 1,
        "feature_pre_filter": False, "verbosity": -1, "seed": seed, "deterministic": True, "force_row_wise": True, "num_threads": threads,
    }  # fmt: skip
    counts = None if weights is None else weights / weights.mean()
    train = lightgbm.Dataset(
        masks.astype(np.float32), values, weight=counts, params={"max_bin": 2, "min_data_in_bin": 1, "feature_pre_filter": False, "verbosity": -1}
    )
    if held_out is None:
        return lightgbm.train(parameters, train, rounds), rounds
    valid = lightgbm.Dataset(held_out.masks.astype(np.float32), held_out.values, weight=held_out.weights, reference=train)
    stop = lightgbm.early_stopping(patience, verbose=False, min_delta=LEAST_PROGRESS * weighted_variance(values, weights))
    booster = lightgbm.train(parameters, train, rounds, valid_sets=[valid], callbacks=[stop], keep_training_booster=True)
    return booster, int(booster.best_iteration)
