"""Retrainings on which a data run is scored: masks trained in this process with fresh training seeds, each batch stored as soon as it is finished.

The store has one game per training seed, with the run's training set and queries, so that one command finds what another has trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from raysp.actions.finished import finished_run
from raysp.game import GameInfo, fingerprint
from raysp.masks import Masks, check_finite
from raysp.runs.continuation import check_same_game
from raysp.runs.progress import Progress
from raysp.specs.lenses import Action, DataLens
from raysp.specs.policy import Consent
from raysp.specs.run import RunSpec
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    from raysp.lenses.data import DataGame
    from raysp.store import Store

Watch = Callable[[Progress], None]


@dataclass
class Retrainings:
    """Outputs of a data game by training seed. `phase` names their cost in the run; `trained` counts the trainings run, `found` those found in the store."""

    store: Store
    run_id: str
    game: DataGame
    phase: str
    watch: Watch
    trained: int = field(default=0, init=False)
    found: int = field(default=0, init=False)

    def outputs(self, masks: Masks, seeds: Sequence[int]) -> Floats:
        """Each query's output, float64 `(len(seeds), m, q)`, on distinct masks (bool `(m, n)`). EvaluationError for outputs that are not finite."""
        games = [self.store.register_game(with_seed(self.game.info, seed)) for seed in seeds]
        known = np.stack([self.store.outputs(game_id, masks) for game_id in games])
        missing = [np.flatnonzero(np.isnan(outputs).any(axis=1)) for outputs in known]
        total = sum(len(rows) for rows in missing)
        self.found += known.shape[0] * len(masks) - total
        began, done = time.perf_counter(), 0
        self._tell(done, total, began)
        for place, (seed, game_id) in enumerate(zip(seeds, games, strict=True)):
            for start in range(0, len(missing[place]), self.game.info.batch_masks):
                rows = missing[place][start : start + self.game.info.batch_masks]
                known[place, rows] = self._trained(masks[rows], seed, game_id)
                done += len(rows)
                self._tell(done, total, began)
        return known

    def _trained(self, masks: Masks, seed: int, game_id: int) -> Floats:
        began = time.perf_counter()
        outputs = self.game.outputs_of(masks, seed)
        values = check_finite(masks, outputs.mean(axis=1))
        seconds = time.perf_counter() - began
        self.store.add_evaluations(self.run_id, self.phase, masks, values, outputs=outputs, game_id=game_id, seconds=seconds)
        self.store.add_cost(self.run_id, self.phase, wall_seconds=seconds)
        self.trained += len(masks)
        return outputs

    def _tell(self, done: int, total: int, began: float) -> None:
        rate = done / max(time.perf_counter() - began, 1e-9)
        self.watch(Progress(self.run_id, self.phase, done, total, self.found, rate, left=(total - done) / rate if done else None))


def own_seeds(lens: DataLens, count: int) -> list[int]:
    """Training seeds that the run did not use, so that fitting the noise of its own seeds is not rewarded."""
    first = lens.training_seed + lens.seeds
    return list(range(first, first + count))


def with_seed(info: GameInfo, seed: int) -> GameInfo:
    """A separate game with the same training set and queries, trained once with this seed."""
    described = dict(info.description) | {"training_seed": seed, "seeds": 1, "seeding": "shared"}
    return replace(info, description=described, fingerprint=fingerprint(described))


def data_run(row: dict[str, Any], action: Action, consent: Consent) -> tuple[RunSpec, DataLens]:
    """The spec in a run's row and its lens; UserError as `finished_run`."""
    spec = finished_run(row, action, consent)
    return spec, cast("DataLens", spec.lens)


def rebuilt(row: dict[str, Any], lens: DataLens) -> DataGame:
    """The run's game, with its model loaded. UserError if it has changed since."""
    from raysp.lenses.data import build_data_game

    game = build_data_game(lens)
    check_same_game(row, game.info, "a model, training set or queries")
    return game
