"""A game measured by a backend and cached in the store, so that plans and actions on finished runs pay for nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysp.game import GameInfo
from raysp.masks import Masks, Values, check_finite, first_of_each, pack, unpack
from raysp.runs.backend import Backend, batches

if TYPE_CHECKING:
    from raysp.runs.run_store import ActionStore

#: The payer of evaluations for a plan, as its run does not exist yet.
PLAN = "plan"
#: The payer of trainings for a search of recipes, which is no run.
RECIPES = "tune-recipe"


@dataclass
class StoredGame:
    """A backend's game whose stored values are looked up; missing ones are measured, and stored batch by batch.

    `payer` is the id of the run that pays, `PLAN` or `RECIPES`, and `phase` names the cost. `bought` counts the masks measured, which took the evaluators `seconds`, and
    `found` those looked up. With a read-only store, stored values are used and new ones are not stored.
    """

    store: ActionStore
    backend: Backend
    payer: str
    phase: str
    watch: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005  the names document the parameters
    bought: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    found: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        info = self.backend.info
        self.game_id = self.store.find_game(info.fingerprint) if self.store.read_only else self.store.register_game(info)

    @property
    def info(self) -> GameInfo:
        """The game."""
        return self.backend.info

    def known(self, masks: Masks) -> Values:
        """The stored values (float64, `(m,)`) of masks (bool, `(m, n)`), NaN if there is none."""
        return np.full(len(masks), np.nan) if self.game_id is None else self.store.known(self.game_id, masks)

    def values(self, masks: Masks) -> Values:
        """The values (float64, `(m,)`) of masks (bool, `(m, n)`). EvaluationError for a value that is not finite, and what `Game.measure` raises."""
        return self._told(masks)[0]

    def outputs(self, masks: Masks) -> NDArray[np.float64]:
        """The outputs (float64, `(m, queries)`) of masks of a game with queries; errors as `values`."""
        return self._told(masks)[1]

    def _told(self, masks: Masks) -> tuple[Values, NDArray[np.float64]]:
        every = pack(masks)
        first, place = first_of_each(every)
        packed = every[first]
        unique, queries = unpack(packed, self.info.n), self.info.queries
        values, outputs = self.known(unique), np.full((len(unique), len(queries)), np.nan)
        if queries and self.game_id is not None:
            outputs = self.store.outputs(self.game_id, unique)
        missing = np.flatnonzero(np.isnan(values) | np.isnan(outputs).any(axis=1))
        self.found += len(unique) - len(missing)
        self._buy(packed, missing, values, outputs)
        return values[place], outputs[place]

    def _buy(self, packed: NDArray[np.uint8], missing: NDArray[np.intp], values: Values, outputs: NDArray[np.float64]) -> None:
        """Measure the packed masks in these rows, have them stored, and fill in their values and outputs."""
        done = 0
        self.watch(done, len(missing))
        for answer in self.backend.measure(batches(self.backend, packed, missing, self.phase)):
            rows, measured = answer.batch.positions[answer.rows], answer.measurement
            masks = unpack(packed[rows], self.info.n)
            values[rows] = check_finite(masks, measured.values)
            if measured.outputs is not None:
                outputs[rows] = measured.outputs
            if not (answer.stored or self.store.read_only):
                self.store.add_evaluations(
                    self.payer,
                    self.phase,
                    masks,
                    values[rows],
                    outputs=measured.outputs,
                    game_id=self.game_id,
                    tokens=measured.tokens,
                    seconds=measured.seconds,
                )
            self.bought += 0 if answer.reused else len(rows)
            self.found += len(rows) if answer.reused else 0
            self.seconds += measured.seconds
            done += len(rows)
            self.watch(done, len(missing))
