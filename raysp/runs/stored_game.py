"""A game measured in this process and cached in the store, so that plans and actions on finished runs pay for nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysp.game import Game
from raysp.masks import Masks, Values, check_finite, pack, unpack

if TYPE_CHECKING:
    from raysp.store import Store

#: The payer of evaluations for a plan, as its run does not exist yet.
PLAN = "plan"


@dataclass
class StoredGame:
    """A game whose stored values are looked up; missing ones are measured, and stored batch by batch.

    `payer` is the id of the run that pays, or `PLAN`, and `phase` names the cost. `bought` counts the masks measured, `found` those looked up. With a read-only
    store, stored values are used and new ones are not stored.
    """

    store: Store
    game: Game
    payer: str
    phase: str
    watch: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005  the names document the parameters
    bought: int = field(default=0, init=False)
    found: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.game_id = self.store.find_game(self.game.info.fingerprint) if self.store.read_only else self.store.register_game(self.game.info)

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
        packed, place = np.unique(pack(masks), axis=0, return_inverse=True)
        unique, queries = unpack(packed, self.game.n), self.game.info.queries
        values, outputs = self.known(unique), np.full((len(unique), len(queries)), np.nan)
        if queries and self.game_id is not None:
            outputs = self.store.outputs(self.game_id, unique)
        missing = np.flatnonzero(np.isnan(values) | np.isnan(outputs).any(axis=1))
        self.found += len(unique) - len(missing)
        for start in range(0, len(missing), self.game.info.batch_masks):
            self.watch(start, len(missing))
            rows = missing[start : start + self.game.info.batch_masks]
            values[rows], outputs[rows] = self._bought(unique[rows])
        return values[place.reshape(-1)], outputs[place.reshape(-1)]

    def _bought(self, masks: Masks) -> tuple[Values, NDArray[np.float64]]:
        measured = self.game.measure(masks)
        values = check_finite(masks, measured.values)
        self.bought += len(masks)
        if not self.store.read_only:
            self.store.add_evaluations(
                self.payer,
                self.phase,
                masks,
                values,
                outputs=measured.outputs,
                game_id=self.game_id,
                tokens=measured.tokens,
                seconds=measured.seconds,
            )
        return values, np.zeros((len(masks), 0)) if measured.outputs is None else measured.outputs
