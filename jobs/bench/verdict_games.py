"""The games of `verdicts.py`: small functions drawn by number, of families that are easy, hard or made to deceive a validation.

A game is the same in every process, as everything random follows from its family and number. Begin reading in `drawn`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from jobs.bench.engine_games import Terms, ensemble, fourier_sum, hierarchical_terms, noisy_sum, scattered_terms
from raysp.masks import Masks, Values
from raysp.spectral.walsh import numbers

#: Numbers of games by family.
FAMILIES = {"hierarchical": 180, "scattered": 140, "additive": 120, "parity": 150, "peak": 200, "trees": 120, "stored": 90}
SIZES, PER_COMPONENT = (8, 12, 16, 24, 32, 48, 64), (1, 2, 5, 10, 20)
#: The least budget: fewer evaluations hold no fit.
LEAST_BUDGET = 24
#: Data sets of the tree ensembles, by number of components.
DATA = {10: "diabetes", 13: "wine", 30: "breast_cancer"}
#: Kinds of rare events: all of a set kept, any of a set kept, all removed in one half of it and kept in the other, and a band of mask sizes.
PEAKS = ("and", "or", "pattern", "size")


@dataclass(frozen=True)
class Game:
    """A function of masks (bool, `(m, n)`) with the budget of the run that explores it. `seed` is the seed of the run."""

    name: str
    family: str
    n: int
    budget: int
    seed: int
    function: Callable[[Masks], Values] = field(repr=False)

    def __call__(self, masks: Any) -> Values:
        """Values, float64 `(m,)`."""
        return np.array(self.function(np.asarray(masks).astype(np.bool_)), dtype=np.float64)


@dataclass(frozen=True)
class Table:
    """All values of a game with few components (float64, `(2^n,)`), in the order of `raysp.spectral.walsh.all_masks`."""

    name: str
    n: int
    values: Values = field(repr=False)


def drawn(family: str, number: int, tables: tuple[Table, ...] = ()) -> Game:
    """A game by its number. `tables` are the stored ones, needed for family `stored`."""
    rng = np.random.default_rng([list(FAMILIES).index(family), number])
    n = int(rng.choice(SIZES))
    per = int(rng.choice(PER_COMPONENT))
    n, function = _stored(n, rng, tables) if family == "stored" else MAKERS[family](n, rng)
    return Game(f"{family}-{number}", family, n, max(per * n, LEAST_BUDGET), number, function)


def _hierarchical(n: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    terms = hierarchical_terms(n, min(n, 20) + int(rng.integers(1, 3 * n)), int(rng.integers(1 << 30)))
    # The higher the order, the weaker: as in models, and so that some of these games are easy.
    fade = float(rng.choice((0.3, 0.6, 1.0)))
    return n, fourier_sum({members: value * fade ** (len(members) - 1) for members, value in terms.items()})


def _scattered(n: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    return n, fourier_sum(scattered_terms(n, int(rng.integers(3, n)), int(rng.integers(1 << 30))))


def _additive(n: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    return n, noisy_sum(n, int(rng.integers(1 << 30)), noise=float(rng.choice((0.0, 0.1, 0.3, 1.0))))


def _effects(n: int, rng: np.random.Generator) -> Terms:
    """Single effects with variance 1 in sum."""
    effects = rng.normal(size=n)
    return {(i,): float(effect) for i, effect in enumerate(effects / np.linalg.norm(effects))}


def _parity(n: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    """A parity of 3 to 8 components, alone or beside single effects of variance 1."""
    members = tuple(sorted(int(i) for i in rng.choice(n, int(rng.integers(3, 9)), replace=False)))
    terms: Terms = _effects(n, rng) if rng.random() < 2 / 3 else {}
    return n, fourier_sum(terms | {members: float(rng.choice((0.1, 0.3, 1.0)))})


def _peak(n: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    """Single effects of variance 1, and a rare event 0.5 to 30 times as large."""
    kind, height = str(rng.choice(PEAKS)), float(rng.choice((0.5, 2.0, 8.0, 30.0)))
    members = rng.choice(n, min(int(rng.integers(6, 11)), n - 1), replace=False)
    wanted = rng.random(len(members)) < 0.5
    size = int(rng.integers(n // 4, n // 2))
    plain = fourier_sum(_effects(n, rng))

    def values(masks: Masks) -> Values:
        some = masks[:, members]
        event = {"and": some.all(axis=1), "or": some.any(axis=1), "pattern": (some == wanted).all(axis=1), "size": masks.sum(axis=1) <= size // 2}[kind]
        return plain(masks) + height * event

    return n, values


@cache
def _inputs(data: str) -> Any:
    from sklearn import datasets

    return getattr(datasets, f"load_{data}")(return_X_y=True)[0]


def _trees(_: int, rng: np.random.Generator) -> tuple[int, Callable[[Masks], Values]]:
    """A tree ensemble's output for an instance of its data, whose missing features have those of another instance or the mean of all."""
    size = int(rng.choice(list(DATA)))
    rows = _inputs(DATA[size])
    instance, other, mean = rows[rng.integers(len(rows))], rows[rng.integers(len(rows))], rng.random() < 0.5

    def values(masks: Masks) -> Values:
        predict, _, average = ensemble(DATA[size])
        return predict(np.where(masks, instance, average if mean else other))

    return size, values


def _stored(n: int, rng: np.random.Generator, tables: tuple[Table, ...]) -> tuple[int, Callable[[Masks], Values]]:
    """Some components of a stored game; the others are kept or removed throughout."""
    table = tables[rng.integers(len(tables))]
    chosen = np.sort(rng.choice(table.n, min(max(n, 8), table.n), replace=False))
    rest = rng.random(table.n) < 0.7

    def values(masks: Masks) -> Values:
        every = np.tile(rest, (len(masks), 1))
        every[:, chosen] = masks
        return table.values[numbers(every)]

    return len(chosen), values


#: What makes a game of each family for about this many components: the number it has, and the function.
MAKERS: dict[str, Callable[[int, np.random.Generator], tuple[int, Callable[[Masks], Values]]]] = {
    "hierarchical": _hierarchical,
    "scattered": _scattered,
    "additive": _additive,
    "parity": _parity,
    "peak": _peak,
    "trees": _trees,
}


def listed(share: float, families: list[str]) -> list[tuple[str, int]]:
    """Families and numbers of a share of all games, the families in turn, so that the first ones are of all kinds."""
    counts = [max(round(FAMILIES[family] * share), 1) for family in families]
    turns = [[(family, number) for family, count in zip(families, counts, strict=True) if number < count] for number in range(max(counts))]
    return list(chain.from_iterable(turns))
