"""The interface of a fit in `engine.py`, and the public implementations behind it: spectralexplain and shapiq, installed by the extra `bench`; and boosted trees.

Peers are used unmodified: one that raises is reported as a row with its error. Times begin when the values are known and end when
the Fourier coefficients are; the peers' conversions to other indices are not counted against them.
"""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from jobs.bench.engine_games import BenchGame, uniform
from raysp.masks import Masks, Values

#: The largest order asked of every method that takes one: the peers' default.
MAX_ORDER = 5
#: First number of the seeds of masks to fit and of held-out masks.
TRAIN, HELDOUT = 1, 2
#: The grid of the tuned trees: depths (None: unlimited), learning rates, numbers of trees; and folds.
DEPTHS, RATES, TREES, FOLDS = (3, 5, None), (0.01, 0.1), (500, 1000), 5
#: Entries of a design matrix held at a time.
CHUNK = 4_000_000


class UnavailableError(Exception):
    """The method is not available in this installation."""


@dataclass(frozen=True)
class Fitted:
    """A fitted method: predictions, seconds of the fit alone, number of terms, and the values it used."""

    predict: Callable[[Masks], Values]
    seconds: float
    terms: int | None
    evaluations: int


@dataclass
class Task:
    """What a method is given: a game, a budget of evaluations (None for a design of its own) and a seed; random masks, should it take some."""

    game: BenchGame
    budget: int | None
    seed: int

    @cached_property
    def sample(self) -> tuple[Masks, Values]:
        """The random masks that all methods of this budget and seed share, with their values."""
        assert self.budget is not None
        masks = uniform(self.game, self.budget, TRAIN, self.seed)
        return masks, self.game(masks)

    def held_out(self) -> tuple[Masks, Values]:
        """Fresh random masks, the same for every method, budget and seed, with their values."""
        masks = uniform(self.game, self.game.heldout, HELDOUT)
        return masks, self.game(masks)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Redirect a library's output to stderr, as stdout is for rows."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def package(name: str) -> Any:
    """A module; UnavailableError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{error}; the extra `bench` installs it") from None


def fourier_predictor(sets: np.ndarray, coefficients: np.ndarray) -> Callable[[Masks], Values]:
    """Predictions of Fourier sums: sets 0/1 `(terms, n)`, coefficients `(terms,)`."""

    def predict(masks: Masks) -> Values:
        step = max(CHUNK // max(len(sets), 1), 1)
        parts = [masks[start : start + step].astype(np.float32) @ sets.T.astype(np.float32) for start in range(0, len(masks), step)]
        return np.concatenate([(1.0 - 2.0 * (part % 2)) @ coefficients for part in parts], dtype=np.float64)

    return predict


def members(sets: Any, n: int) -> np.ndarray:
    """Tuples of components as 0/1 rows `(terms, n)`."""
    rows = np.zeros((len(sets), n))
    for row, chosen in enumerate(sets):
        rows[row, list(chosen)] = 1
    return rows


def spectralexplain(task: Task) -> Fitted:
    """Its ProxySPEX on the shared masks, through the function that its Explorer calls on masks of its own; as it comes."""
    fit = package("spectralexplain.utils").proxy_spex
    masks, values = task.sample
    with quiet():
        began = time.perf_counter()
        found = fit((masks.astype(int), values), max_order=MAX_ORDER)
        seconds = time.perf_counter() - began
    sets, coefficients = np.array(list(found)), np.array(list(found.values()), dtype=np.float64)
    return Fitted(fourier_predictor(sets, coefficients), seconds, len(found), len(values))


class Watch:
    """A game with shapiq's interface, which records when the values were returned."""

    def __init__(self, game: BenchGame) -> None:
        self.game, self.evaluations, self.began = game, 0, 0.0

    def __call__(self, masks: Any) -> Values:
        """Values of the game."""
        values = self.game(masks)
        self.evaluations += len(values)
        self.began = time.perf_counter()
        return values


def shapiq_approximator(name: str, task: Task) -> Any:
    """A class of shapiq; UnavailableError if the version lacks it or it does not support the game."""
    approximators = package("shapiq.approximator")
    if not hasattr(approximators, name):
        raise UnavailableError(f"shapiq {version('shapiq')} has no {name}")
    if task.game.keep != 0.5:
        raise UnavailableError(f"shapiq's {name} draws its own masks, at P(keep) = 0.5 only")
    return getattr(approximators, name)


class FoundError(Exception):
    """Carries shapiq's Fourier coefficients out of it, and the time."""

    def __init__(self, found: dict[tuple[int, ...], float]) -> None:
        super().__init__()
        self.found, self.at = found, time.perf_counter()


def shapiq_proxyspex(task: Task) -> Fitted:
    """Its ProxySPEX on its own paired masks, stopped at the refitted Fourier coefficients: what follows only converts them."""
    base = shapiq_approximator("ProxySPEX", task)

    class Stopped(base):
        def _refine(self, *arguments: Any) -> Any:
            raise FoundError(super()._refine(*arguments))

    game = Watch(task.game)
    with quiet():
        try:
            Stopped(n=task.game.n, random_state=task.seed).approximate(budget=task.budget, game=game)
        except FoundError as stop:
            coefficients = np.array(list(stop.found.values()), dtype=np.float64)
            return Fitted(fourier_predictor(members(stop.found, task.game.n), coefficients), stop.at - game.began, len(stop.found), game.evaluations)
    raise RuntimeError("shapiq's ProxySPEX gave no Fourier coefficients")


def shapiq_proxyshap(task: Task) -> Fitted:
    """Its ProxySHAP as pairwise Faith-Banzhaf interactions: of its indices, the one that predicts uniform masks best."""
    approximator = shapiq_approximator("ProxySHAP", task)
    game, n = Watch(task.game), task.game.n
    with quiet():
        values = approximator(n=n, index="FBII", max_order=2, random_state=task.seed).approximate(budget=task.budget, game=game)
        seconds = time.perf_counter() - game.began
    found = dict(values.dict_values)
    sizes, rows, coefficients = np.array([len(chosen) for chosen in found]), members(found, n), np.array(list(found.values()))
    return Fitted(lambda masks: (masks.astype(np.float32) @ rows.T == sizes) @ coefficients, seconds, len(found), game.evaluations)


def tuned_trees(task: Task) -> Fitted:
    """Boosted trees on the shared masks, untruncated, with the best parameters of the ProxySPEX paper's grid by cross-validation."""
    from lightgbm import LGBMRegressor
    from sklearn.model_selection import GridSearchCV

    masks, values = task.sample
    grid = {"max_depth": [depth or -1 for depth in DEPTHS], "learning_rate": list(RATES), "n_estimators": list(TREES)}
    search: Any = GridSearchCV(LGBMRegressor(verbose=-1, random_state=task.seed, n_jobs=1, min_child_samples=5), grid, cv=FOLDS, scoring="r2")
    began = time.perf_counter()
    search.fit(masks.astype(np.float64), values)
    return Fitted(lambda some: search.predict(some.astype(np.float64)), time.perf_counter() - began, None, len(values))


#: The peers by name.
PEERS = {"spectralexplain": spectralexplain, "shapiq": shapiq_proxyspex, "proxyshap": shapiq_proxyshap, "tuned_trees": tuned_trees}
