"""The truth about a run's answer: R² on many fresh masks, and deviations by exact differences of the game's values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.verdict_games import Game
from raysp.masks import Masks, lookup
from raysp.runs.result import Result
from raysp.sampling.matching import distinct
from raysp.spectral.regression import r_squared
from raysp.spectral.walsh import all_masks
from raysp.validation.planning import NEAR

#: Fresh masks on which a true R² is measured, and components up to which all masks are.
FRESH, DENSE = 2000, 13
#: Contexts over which an interaction is averaged if not all masks are measured.
CONTEXTS = 2000
#: The most significant interactions, strongest first, and the most deviations that are compared.
COMPARED = 30
#: Values closer to zero than this, relative to the largest, are zero.
ZERO = 1e-9


@dataclass(frozen=True)
class Truth:
    """The truth about one answer.

    `r2`: R² on uniform masks, and `r2_near` around the intact input (NaN where nothing varies). `significant`: how many interactions called significant were
    compared, and `wrong_signs` of them. For deviations around the intact input: mean `error`, mean `size` and share of right `signs`. `single`: the strongest
    single effect.
    """

    r2: dict[str, float]
    significant: int
    wrong_signs: int
    error: float
    size: float
    signs: float
    single: float


def truth_of(game: Game, result: Result) -> Truth:
    """The truth about a run's answer."""
    rng = np.random.default_rng([game.seed, 7])
    surrogate = result.surrogate
    if surrogate is None:
        raise ValueError(f"{game.name}: the run stored no surrogate")
    known = _explored(result)
    r2 = {}
    for name, masks in (("r2", _uniform(game.n, rng)), ("r2_near", _near(game.n, rng))):
        fresh = masks[lookup(known, masks) < 0]
        values = game(fresh)
        r2[name] = r_squared(values, surrogate.predict(fresh)) if len(fresh) > 1 else float("nan")
    compared, wrong = _signs(game, result, rng)
    return Truth(r2, compared, wrong, *_deviations(game, result))


def _explored(result: Result) -> Masks:
    """The masks that the surrogate was fitted on."""
    rows = result.evaluations.filter(pa.array(np.array(result.evaluations["phase"].to_pylist()) == "explore"))
    return rows["mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)


def _uniform(n: int, rng: np.random.Generator) -> Masks:
    """All masks of few components, otherwise random ones."""
    return all_masks(n) if n <= DENSE else distinct(rng.random((FRESH, n)) < 0.5)


def _near(n: int, rng: np.random.Generator) -> Masks:
    """Masks that remove two to five components, each number equally often as far as there are enough."""
    order = rng.random((FRESH, n)).argsort(axis=1).argsort(axis=1)
    return distinct(order >= rng.choice([k for k in NEAR if k < n], FRESH)[:, None])


def _signs(game: Game, result: Result, rng: np.random.Generator) -> tuple[int, int]:
    """How many interactions called significant are compared, and how many have a wrong sign and a value outside their interval, beyond the error of the truth."""
    rows = [row for row in result.interactions.slice(0, COMPARED).to_pylist() if row["significant"] and row["order"] <= 4]
    wrong = 0
    for row in rows:
        exact, error = _banzhaf(game, row["components"], rng)
        far = max(row["lo"] - exact, exact - row["hi"], 0.0)
        wrong += np.sign(row["value"]) * exact <= 2 * error and far > 2 * error
    return len(rows), int(wrong)


def _banzhaf(game: Game, members: list[int], rng: np.random.Generator) -> tuple[float, float]:
    """The Banzhaf interaction of a set and its standard error, 0.0 if all contexts are measured."""
    dense = game.n <= DENSE
    contexts = all_masks(game.n) if dense else rng.random((CONTEXTS, game.n)) < 0.5
    if dense:
        contexts = contexts[~contexts[:, members].any(axis=1)]
    total = np.zeros(len(contexts))
    for corner in all_masks(len(members)):
        masks = contexts.copy()
        masks[:, members] = corner
        total += (-1.0) ** (len(members) - corner.sum()) * game(masks)
    total[np.abs(total) < ZERO * max(np.abs(total).max(), 1.0)] = 0.0
    return float(total.mean()), 0.0 if dense else float(total.std() / np.sqrt(len(total)))


def _deviations(game: Game, result: Result) -> tuple[float, float, float, float]:
    """Mean error and size of the reported deviations around the intact input, the share of right signs, and the strongest single effect."""
    rows: list[dict[str, Any]] = [row for row in result.interactions.slice(0, COMPARED).to_pylist() if row["order"] <= 4 and row["estimate"] is not None]
    single = float(np.abs(result.singles["value"].to_numpy()).max(initial=0.0))
    if not rows:
        return 0.0, 0.0, 1.0, single
    exact = np.array([_deviation(game, row["components"]) for row in rows])
    estimate = np.array([row["estimate"] for row in rows])
    worth = np.abs(exact) > 0.1 * np.abs(exact).max()
    right = float(np.mean(np.sign(exact[worth]) == np.sign(estimate[worth]))) if worth.any() else 1.0
    return float(np.abs(estimate - exact).mean()), float(np.abs(exact).mean()), right, single


def _deviation(game: Game, members: list[int]) -> float:
    """What removing a set does beyond removing its subsets."""
    corners = all_masks(len(members))  # of the components kept
    masks = np.ones((len(corners), game.n), dtype=np.bool_)
    masks[:, members] = corners
    removed = len(members) - corners.sum(axis=1)
    return float(-((-1.0) ** (len(members) - removed) * game(masks)).sum())
