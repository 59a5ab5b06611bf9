"""Removal curves and flip sets of `intact.py`: which components to remove so that the value falls most, or changes its sign, by method; every set is measured."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import raysp
from jobs.bench.context_methods import Question, lasso_weights
from jobs.bench.engine_peers import UnavailableError, package, quiet
from raysp.actions.flip import flips
from raysp.explorers import fit_singles
from raysp.masks import Masks, Values
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats
from raysp.spectral.walsh import all_masks

#: Sizes of the curve, the largest flip set, the number of components up to which all sets are measured, and seconds of a search.
SIZES, MOST_FLIPPED, EXHAUSTIVE, SOLVING = range(1, 11), 10, 14, 10.0
#: First number of the seeds of the peers' uniform masks.
PEERS = 41

Value = Callable[[Masks], Values]
Row = dict[str, Any]


def without(n: int, sets: list[tuple[int, ...]]) -> Masks:
    """The intact mask without each set, bool `(len(sets), n)`."""
    return ablations(n, sets)


def rankings(value: Value, n: int, budget: int, seed: int) -> dict[str, tuple[int, ...]]:
    """Components from the most supportive on, by the peers: each with `budget` evaluations, but for single ablations (n) and the greedy removal (n a step)."""
    masks = np.random.default_rng([PEERS, seed]).random((budget, n)) < 0.5
    values = value(masks)
    singles = value(without(n, [(i,) for i in range(n)]))
    found = {
        "contextcite": lasso_weights(masks, values)[0],
        "lasso": fit_singles(masks, values, seed).single_effects(),
        "single ablations": -singles,
    }
    with contextlib.suppress(UnavailableError):
        found["shapiq SV"] = shapley(value, n, budget, seed)
    return {name: tuple(np.argsort(-weights, kind="stable").tolist()) for name, weights in found.items()} | {"greedy": greedy(value, n)}


def shapley(value: Value, n: int, budget: int, seed: int) -> Values:
    """Shapley values by shapiq's KernelSHAP with its own masks, float64 `(n,)`. UnavailableError if it is not installed."""
    estimator = package("shapiq.approximator").KernelSHAP

    def game(masks: Any) -> Values:
        return value(np.asarray(masks).astype(np.bool_))

    with quiet():
        found = estimator(n=n, random_state=seed).approximate(budget=budget, game=game)
    return np.array([float(found[i,]) for i in range(n)])


def by_slopes(value: Value, n: int, gate_slopes: Callable[[Masks], Floats]) -> tuple[int, ...]:
    """Components in the order in which `raysp.greedy_removals` takes them, as many as the curve has sizes."""
    found = raysp.greedy_removals(Question(value, n, gate_slopes=gate_slopes), min(max(SIZES), n))
    return tuple(found["components"].to_pylist()[-1])


def greedy(value: Value, n: int) -> tuple[int, ...]:
    """Components in the order in which each lowers the measured value most, as many as the curve has sizes."""
    gone: tuple[int, ...] = ()
    for _ in range(min(max(SIZES), n)):
        left = [i for i in range(n) if i not in gone]
        gone = (*gone, left[int(np.argmin(value(without(n, [(*gone, i) for i in left]))))])
    return gone


def optimum(value: Value, n: int) -> dict[int, float]:
    """The lowest value without any r components, by r from 0 on; all masks are measured."""
    masks = all_masks(n)
    values, gone = value(masks), (~masks).sum(axis=1)
    return {r: float(values[gone == r].min()) for r in range(n + 1)}


def curve(value: Value, n: int, surrogate: FourierSurrogate, others: dict[str, tuple[int, ...]]) -> Iterator[Row]:
    """A row for each size and method: the drop of the value without its set. `solver` is the best set under the surrogate; `measured` starts from there."""
    sizes = [r for r in SIZES if r < n]
    chosen = {"solver": [raysp.best_subset(surrogate, r, "decrease", time_limit=SOLVING).components for r in sizes]}
    refined = raysp.measured_removals(surrogate, value, sizes, "decrease", time_limit=SOLVING)
    chosen |= {"measured": [tuple(members) for members in refined["components"].to_pylist()]}
    chosen |= {name: [ranking[:r] for r in sizes] for name, ranking in others.items()}
    intact = float(value(np.ones((1, n), dtype=np.bool_))[0])
    for name, sets in chosen.items():
        for r, left in zip(sizes, value(without(n, sets)).tolist(), strict=True):
            yield {"method": name, "r": r, "drop": intact - left}
    if n <= EXHAUSTIVE:
        least = optimum(value, n)
        yield from ({"method": "optimum", "r": r, "drop": intact - least[r]} for r in sizes)


def flipped(value: Value, n: int, surrogate: FourierSurrogate, others: dict[str, tuple[int, ...]]) -> Iterator[Row]:
    """A row for each method: the size of its smallest set whose removal changes the sign of the measured value; None if none of up to `MOST_FLIPPED` does."""
    intact = float(value(np.ones((1, n), dtype=np.bool_))[0])
    offers = {"solver": flips(surrogate, 0.0, MOST_FLIPPED, SOLVING)}
    offers |= {name: [ranking[:r] for r in range(1, MOST_FLIPPED + 1)] for name, ranking in others.items()} if intact > 0 else {}
    for name, sets in offers.items():
        values = value(without(n, [tuple(each) for each in sets])) if sets else np.zeros(0)
        verified = [len(each) for each, left in zip(sets, values.tolist(), strict=True) if (left > 0) != (intact > 0)]
        yield {"method": name, "offered": len(sets[0]) if sets else None, "size": min(verified, default=None)}
    if n <= EXHAUSTIVE:
        masks = all_masks(n)
        crossed = (value(masks) > 0) != (intact > 0)
        yield {"method": "optimum", "size": int((~masks[crossed]).sum(axis=1).min()) if crossed.any() else None}
