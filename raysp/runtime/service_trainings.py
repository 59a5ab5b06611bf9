"""The trainings of a recipe's trial as orders of the cluster's scheduler: evaluators train, beside whatever else they measure, and the store keeps the outputs."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from raysp.actions.recipe_trials import Trained
from raysp.game import GameInfo
from raysp.masks import Masks
from raysp.runs.stored_game import RECIPES, StoredGame
from raysp.runtime.backend import ServiceBackend
from raysp.runtime.link import Link
from raysp.runtime.scheduler import scheduler
from raysp.runtime.store_proxy import StoreProxy
from raysp.specs.lenses import DataLens

#: The phase under which trainings of recipes are stored.
PHASE = "recipe"
#: The priority of a run that states none; each step below it halves the share of the evaluators.
USUAL = 5


def shared_priority(count: int) -> int:
    """The priority with which so many sessions have together at most the share of one run, as far as priorities go."""
    return max(0, USUAL - (count - 1).bit_length())


class ServiceTrainings:
    """As `raysp.actions.recipe_trials.Trainings`, for a process that is connected to Ray.

    What the store at `store` has is not trained again; the rest is stored, paid for by `RECIPES`. All trainings are orders of one session, whose name begins with
    `search`, so that they take at most one evaluator at a time.
    """

    def __init__(self, store: Path, search: str, priority: int) -> None:
        self._link = Link(scheduler)
        self._store = StoreProxy(self._link, store)
        self._names: Iterator[str] = (f"{search}:{token_hex(4)}:{number}" for number in itertools.count())
        self._priority = priority
        self._backend: ServiceBackend | None = None
        self._asked: str | None = None
        self._games: dict[str, tuple[StoredGame, GameInfo]] = {}

    def describe(self, lens: DataLens) -> GameInfo:
        """As `Trainings.describe`, by an evaluator."""
        backend = self._turn(lens, None)
        self._games[lens.key] = StoredGame(self._store, backend, RECIPES, PHASE), backend.info
        return backend.info

    def measure(self, lens: DataLens, masks: Masks) -> Trained:
        """As `Trainings.measure`."""
        game, info = self._games[lens.key]
        self._turn(lens, info)
        bought, seconds = game.bought, game.seconds
        outputs = game.outputs(masks)
        return Trained(outputs, game.bought - bought, game.seconds - seconds)

    def close(self) -> None:
        """As `Trainings.close`. What was ordered and not answered is dropped."""
        backend, self._backend, self._asked = self._backend, None, None
        self._games.clear()
        if backend is not None:
            backend.__exit__(None, None, None)

    def _turn(self, lens: DataLens, info: GameInfo | None) -> ServiceBackend:
        """The session's backend, asking about this lens from now on. The game is described anew unless it is known."""
        if self._backend is None:
            self._backend = ServiceBackend(
                self._link, lens, session=next(self._names), store=self._store.path, payer=RECIPES, priority=self._priority, workers=1
            )
        elif info is None or self._asked != lens.key:
            self._backend.rebuild(lens, info)
        self._asked = lens.key
        return self._backend
