"""A trial of a training recipe: the trainings that it takes, in steps, wherever they run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from raysp.actions.recipes import SEEDS, Candidate, Evidence, Floats, extended, subsets, unmeasured
from raysp.errors import EvaluationError, UserError
from raysp.game import Game, GameInfo
from raysp.masks import Masks
from raysp.specs.lenses import DataLens

#: Values that are the queries' loss per token, up to their sign.
LOSSES = {"loss": 1.0, "logprob_mean": -1.0}


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Each query's output on each mask, float64 `(m, queries)`, and how many of the trainings were run rather than found in a store, in how many seconds."""

    outputs: Floats
    run: int
    seconds: float


class Trainings(Protocol):
    """Where adapters are trained."""

    def describe(self, lens: DataLens) -> GameInfo:
        """The game of a lens. UserError for what the lens cannot do."""
        ...

    def measure(self, lens: DataLens, masks: Masks) -> Trained:
        """Train on each mask (bool, `(m, n)`) of a lens that was described. UserError or EvaluationError if a training diverges."""
        ...

    def close(self) -> None:
        """Forget the lenses that were described."""
        ...


class LocalTrainings:
    """Trainings in this process. The model stays resident from one lens to the next."""

    def __init__(self) -> None:
        self._games: dict[str, Game] = {}

    def describe(self, lens: DataLens) -> GameInfo:
        """As `Trainings.describe`."""
        from raysp.lenses import build_game

        self._games[lens.model_dump_json()] = game = build_game(lens)
        return game.info

    def measure(self, lens: DataLens, masks: Masks) -> Trained:
        """As `Trainings.measure`."""
        found = self._games[lens.model_dump_json()].measure(masks)
        assert found.outputs is not None
        return Trained(found.outputs, len(masks), found.seconds)

    def close(self) -> None:
        """As `Trainings.close`."""
        self._games.clear()


def layers_of(lens: DataLens, trainings: Trainings) -> int:
    """The number of layers of the lens's model. UserError for what the lens cannot do."""
    try:
        return 1 + max(trainings.describe(lens.model_copy(update={"adapted_layers": "last:1"})).description["recipe"]["layers"])
    finally:
        trainings.close()


def observe(lens: DataLens, candidate: Candidate, trainings: Trainings, *, keep: float | None, seed: int) -> Iterator[Evidence]:
    """Measure a recipe step by step; every step yields all that is known by then. A recipe that diverges ends with evidence that states so."""
    try:
        yield from _steps(candidate.applied(lens), candidate, trainings, keep=keep, seed=seed)
    except UserError as error:
        if error.field != "learning_rate":
            raise
        yield unmeasured(candidate, error.problem)
    except EvaluationError as error:
        yield unmeasured(candidate, str(error))
    finally:
        trainings.close()


def _steps(lens: DataLens, candidate: Candidate, trainings: Trainings, *, keep: float | None, seed: int) -> Iterator[Evidence]:
    """As `observe`, raising what trainings that diverge raise."""
    evidence = Evidence(candidate, np.empty((0, SEEDS, 0)), shared=lens.seeding == "shared")
    seeded = [_with_seed(lens, k) for k in range(SEEDS)]
    info, *_ = [trainings.describe(each) for each in seeded]
    steps = subsets(info.n, keep, seed)
    loss, untrained = _losses(seeded, info, trainings)
    for number, masks in enumerate(steps, 1):
        measured = [trainings.measure(each, masks) for each in seeded]
        outputs = np.stack([_finite(each.outputs) for each in measured], axis=1)
        if not evidence.trainings + sum(each.run for each in measured):  # the price is not in a store: machines differ
            measured.append(_anew(lens, masks, trainings))
        evidence = extended(evidence, outputs, sum(each.seconds for each in measured), sum(each.run for each in measured))
        yield replace(evidence, loss=loss, untrained_loss=untrained, complete=number == len(steps))


def _with_seed(lens: DataLens, number: int) -> DataLens:
    """The lens trained once from the seed of this number."""
    return lens.model_copy(update={"training_seed": lens.training_seed + number, "seeds": 1})


def _anew(lens: DataLens, masks: Masks, trainings: Trainings) -> Trained:
    """The masks trained from the first seed with which no store has all of them."""
    for number in itertools.count(SEEDS):
        seeded = _with_seed(lens, number)
        trainings.describe(seeded)
        if (found := trainings.measure(seeded, masks)).run:
            return found
    raise AssertionError("unreachable")


def _losses(seeded: Sequence[DataLens], info: GameInfo, trainings: Trainings) -> tuple[float, float]:
    """The queries' mean loss per token after training on everything, averaged over seeds, and that of the untrained model."""
    sign = LOSSES.get(str(info.description["value"]))
    if sign is None:
        seeded = [lens.model_copy(update={"value": "loss"}) for lens in seeded]
        for lens in seeded:
            trainings.describe(lens)
    both = np.array([[True] * info.n, [False] * info.n])
    found = np.mean([_finite(trainings.measure(lens, both).outputs).mean(axis=1) for lens in seeded], axis=0) * (sign or 1.0)
    return float(found[0]), float(found[1])


def _finite(outputs: Floats) -> Floats:
    """The outputs. EvaluationError if one is not finite."""
    if not np.isfinite(outputs).all():
        raise EvaluationError("an answer is not finite")
    return outputs
