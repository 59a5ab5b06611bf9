"""Retrainings on which a data run is scored: masks trained with fresh training seeds, each batch stored as soon as it is finished.

The store has one game per training seed, with the run's training set and queries, so that one command finds what another has trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from raysp.actions.finished import finished_run
from raysp.datasets.held_out import with_seed
from raysp.masks import Masks
from raysp.runs.continuation import check_same_game
from raysp.runs.progress import Progress
from raysp.runs.stored_game import StoredGame
from raysp.specs.held_out import RetrainingLens
from raysp.specs.lenses import Action, DataLens
from raysp.specs.policy import Consent
from raysp.specs.run import RunSpec
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    from raysp.game import GameInfo
    from raysp.runs.backend import Backend, BackendOf
    from raysp.runs.run_store import ActionStore

Watch = Callable[[Progress], None]


@dataclass
class Retrainings:
    """Outputs of a data game by training seed. `phase` names their cost in the run; `trained` counts the trainings run, `found` those found in the store.

    `info` is the run's game, or one that asks the queries of `heldout` instead.
    """

    store: ActionStore
    run_id: str
    backend_of: BackendOf
    lens: DataLens
    info: GameInfo
    phase: str
    watch: Watch
    heldout: str | None = None
    trained: int = field(default=0, init=False)
    found: int = field(default=0, init=False)

    def outputs(self, masks: Masks, seeds: Sequence[int]) -> Floats:
        """Each query's output, float64 `(len(seeds), m, q)`, on distinct masks (bool `(m, n)`). EvaluationError for outputs that are not finite."""
        games = [self.store.register_game(with_seed(self.info, seed)) for seed in seeds]
        known = np.stack([self.store.outputs(game_id, masks) for game_id in games])
        missing = np.asarray(np.isnan(known).any(axis=2))
        total = int(missing.sum())
        self.found += missing.size - total
        began = time.perf_counter()
        self._tell(0, total, began)
        for outputs, lacking, seed in zip(known, missing, seeds, strict=True):
            if lacking.any():
                outputs[lacking] = self._train(masks[lacking], seed, total, began)
        return known

    def _train(self, masks: Masks, seed: int, total: int, began: float) -> Floats:
        before, at = self.trained, time.perf_counter()
        backend = self.backend_of(RetrainingLens.of(self.lens, seed, heldout=self.heldout, value=self.info.description["value"]))
        game = StoredGame(self.store, backend, self.run_id, self.phase, lambda done, _: self._tell(before + done, total, began))
        outputs = game.outputs(masks)
        self.trained += game.bought
        self.store.add_cost(self.run_id, self.phase, wall_seconds=time.perf_counter() - at)
        return outputs

    def _tell(self, done: int, total: int, began: float) -> None:
        rate = done / max(time.perf_counter() - began, 1e-9)
        self.watch(Progress(self.run_id, self.phase, done, total, self.found, rate, left=(total - done) / rate if done else None))


def own_seeds(lens: DataLens, count: int) -> list[int]:
    """Training seeds that the run did not use, so that fitting the noise of its own seeds is not rewarded."""
    first = lens.training_seed + lens.seeds
    return list(range(first, first + count))


def data_run(row: dict[str, Any], action: Action, consent: Consent) -> tuple[RunSpec, DataLens]:
    """The spec in a run's row and its lens; UserError as `finished_run`."""
    spec = finished_run(row, action, consent)
    return spec, cast("DataLens", spec.lens)


def asked_again(row: dict[str, Any], lens: DataLens, backend_of: BackendOf) -> Backend:
    """A backend of the run's game. UserError if the game has changed since."""
    backend = backend_of(lens)
    check_same_game(row, backend.info, "a model, training set or queries")
    return backend
