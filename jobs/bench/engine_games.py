"""The games of `engine.py` that need no model: planted sums, and tree ensembles on scikit-learn's own data.

A game is a named function from masks to values, independent of explorers. Each is the same in every process: its
randomness follows from a seed of its name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from raysp.masks import Masks, Values

Terms = dict[tuple[int, ...], float]
#: Up to this many components, random masks repeat at the budgets used.
FEW = 14
#: Mixing constants of splitmix64: a noise that is a function of the mask alone.
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


@dataclass(frozen=True)
class BenchGame:
    """A game and how it is benchmarked: budgets, P(keep), number of held-out masks, and the b of SPEX (None: without SPEX)."""

    name: str
    kind: str
    n: int
    function: Callable[[Masks], Values] = field(repr=False)
    budgets: tuple[int, ...]
    keep: float = 0.5
    heldout: int = 1000
    spex: int | None = None

    def __call__(self, masks: Any) -> Values:
        """Values (float64, `(m,)`) of masks (bool or 0/1, `(m, n)`); a new array each time, as a peer writes into what it is given."""
        return np.array(self.function(np.asarray(masks).astype(np.bool_)), dtype=np.float64)


def uniform(game: BenchGame, count: int, *seed: int) -> Masks:
    """`count` random masks, made distinct if chance would repeat some. A smaller count gives the first masks of a larger one."""
    rng = np.random.default_rng([*seed, game.n])
    if game.n > FEW:
        return rng.random((count, game.n)) < game.keep
    drawn = rng.random((8 << game.n, game.n)) < game.keep
    _, first = np.unique(drawn, axis=0, return_index=True)
    return drawn[np.sort(first)][:count]


# ---- planted


def fourier_sum(terms: Terms) -> Callable[[Masks], Values]:
    """The function with these Fourier coefficients, written out so that it shares no code with what is measured."""

    def values(masks: Masks) -> Values:
        return sum((c * (1.0 - 2.0 * masks[:, list(s)]).prod(axis=1) for s, c in terms.items()), np.zeros(len(masks)))

    return values


def hierarchical_terms(n: int, count: int, seed: int, max_order: int = 4) -> Terms:
    """Sets that each extend another one, from up to 20 singles on; coefficients are standard normal."""
    rng = np.random.default_rng(seed)
    terms: Terms = {(int(i),): float(rng.normal()) for i in rng.choice(n, min(n, 20), replace=False)}
    while len(terms) < count:
        members = list(terms)[rng.integers(len(terms))]
        added = int(rng.integers(n))
        if added not in members and len(members) < max_order:
            terms[tuple(sorted((*members, added)))] = float(rng.normal())
    return terms


def scattered_terms(n: int, count: int, seed: int, max_order: int = 5) -> Terms:
    """Sets of any order up to `max_order`, without hierarchy; coefficients of size 1 to 2, so that each can be found."""
    rng = np.random.default_rng(seed)
    terms: Terms = {}
    while len(terms) < count:
        members = tuple(sorted(int(i) for i in rng.choice(n, int(rng.integers(1, max_order + 1)), replace=False)))
        terms[members] = float(rng.choice([-1, 1]) * rng.uniform(1, 2))
    return terms


def noisy_sum(n: int, seed: int, noise: float = 0.5) -> Callable[[Masks], Values]:
    """Single effects with variance 1 and normal noise of standard deviation `noise` that is the same whenever a mask is."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=n)
    effects /= np.linalg.norm(effects)
    salt = rng.integers(0, 1 << 63, (n, 2), dtype=np.uint64)

    def values(masks: Masks) -> Values:
        keys = masks.astype(np.uint64) @ salt
        for shift, factor in MIX:
            keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
        first, second = ((keys >> np.uint64(11)) + np.uint64(1)).T / 2.0**53
        return (1.0 - 2.0 * masks) @ effects + noise * np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)

    return values


# ---- tree ensembles


@cache
def ensemble(data: str) -> tuple[Callable[[Any], Any], Any, Any]:
    """Raw predictions of an ensemble fitted to a data set, the instance explained, and the training mean that stands for a missing feature."""
    from sklearn import datasets
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier

    inputs, outputs = getattr(datasets, f"load_{data}")(return_X_y=True)
    instance, mean = inputs[0], inputs.mean(axis=0)
    if data == "diabetes":
        return GradientBoostingRegressor(max_depth=4, random_state=0).fit(inputs, outputs).predict, instance, mean
    if data == "breast_cancer":
        return GradientBoostingClassifier(max_depth=4, random_state=0).fit(inputs, outputs).decision_function, instance, mean
    forest = RandomForestClassifier(200, random_state=0).fit(inputs, outputs)
    column = int(outputs[0])

    def probability(rows: Any) -> Any:
        return forest.predict_proba(rows)[:, column]

    return probability, instance, mean


def baseline_game(data: str) -> Callable[[Masks], Values]:
    """The ensemble's output for one instance whose missing features have their training mean."""

    def values(masks: Masks) -> Values:
        predict, instance, mean = ensemble(data)
        return predict(np.where(masks, instance, mean))

    return values


def synthetic_games(quick: bool) -> list[BenchGame]:
    """All games of this module; few and small ones if `quick`. Nothing is fitted before a value is requested."""
    games = [
        *(
            BenchGame(f"planted-{n}", "planted", n, fourier_sum(hierarchical_terms(n, 60, n)), budgets, spex=spex)
            for n, budgets, spex in (
                (16, (500,), None),
                (32, (500, 1000, 2000), 8),
                (64, (1000, 2000), 8),
                (128, (1000, 2000, 5000), 8),
                (300, (2000, 5000), None),
                (1000, (5000,), None),
            )
        ),
        *(
            BenchGame(f"scattered-{n}", "scattered", n, fourier_sum(scattered_terms(n, terms, n)), budgets, spex=spex)
            for n, terms, budgets, spex in ((20, 30, (500, 1000), 7), (32, 30, (1000, 2000), 8), (64, 40, (2000, 5000), 8), (128, 40, (5000,), 8))
        ),
        *(BenchGame(f"additive-{n}", "additive", n, noisy_sum(n, n), budgets) for n, budgets in ((32, (500, 1000)), (128, (1000, 2000)))),
        # Ten features have 1,024 masks, thirteen 8,192.
        *(
            BenchGame(f"trees-{data}", "ensemble", n, baseline_game(data), budgets)
            for data, n, budgets in (("diabetes", 10, (300,)), ("wine", 13, (500,)), ("breast_cancer", 30, (500, 1000, 2000)), ("digits", 64, (500, 2000)))
        ),
    ]
    if not quick:
        return games
    kept = {"planted-32": (500,), "additive-32": (300,), "trees-breast_cancer": (300,)}
    return [BenchGame(g.name, g.kind, g.n, g.function, kept[g.name]) for g in games if g.name in kept]
