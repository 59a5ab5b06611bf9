"""The actor that holds resident models and measures batches of masks.

It knows lenses only as something that can be built. Its constructor does nothing that can fail: a model is loaded by the first call that
needs it, so a failed load is an ordinary failed call, and a restarted actor loads again by itself.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from raysp.game import Game, GameInfo, Measurement, Values, unpack
from raysp.spec import AnyLens
from raysp.spectral.fourier import FourierSurrogate

# Games kept ready beside the resident model; each holds a tokenised prompt and a small cache, not weights.
GAMES_KEPT = 64
# More calls than this waiting for one evaluator mean that a scheduler has lost count.
MAX_PENDING_CALLS = 256


class Evaluator:
    """Resident models, and the games built on them. Turned into an actor by `evaluator_actor`."""

    def __init__(self, name: str, threads: int | None) -> None:
        self.name, self._threads = name, threads
        self._games: OrderedDict[str, Game] = OrderedDict()
        self._ready = False

    def __repr__(self) -> str:
        """How the Ray dashboard lists it."""
        return self.name

    def ping(self) -> str:
        """Its name, once it runs."""
        return self.name

    def describe(self, key: str, lens: AnyLens) -> GameInfo:
        """The game of a lens, built here. UserError for what the lens cannot do."""
        return self._game(key, lens).info

    def attributions(self, key: str, lens: AnyLens) -> dict[str, Values]:
        """Cross-checks of a lens' game, as `Game.attributions`."""
        return self._game(key, lens).attributions()

    def estimate(self, key: str, lens: AnyLens, max_order: int) -> FourierSurrogate | None:
        """What gradients say of a lens' game, as `Game.estimate`."""
        return self._game(key, lens).estimate(max_order)

    def hints(self, key: str, lens: AnyLens) -> NDArray[np.float64] | None:
        """Guesses of effects, as `Game.hints`."""
        return self._game(key, lens).hints()

    def measure(self, key: str, lens: AnyLens, packed: NDArray[np.uint8]) -> Measurement:
        """Values of packed masks of a lens' game. May run twice for the same masks without harm."""
        game = self._game(key, lens)
        return game.measure(unpack(packed, game.n))

    def _game(self, key: str, lens: AnyLens) -> Game:
        if not self._ready and self._threads is not None and lens.kind != "function":
            from raysp.models.loading import set_threads

            set_threads(self._threads)
            self._ready = True
        if key not in self._games:
            self._games[key] = lens.build()
            if len(self._games) > GAMES_KEPT:
                self._games.popitem(last=False)
        self._games.move_to_end(key)
        return self._games[key]


evaluator_actor: Any = ray.remote(Evaluator)
OPTIONS = {"max_restarts": -1, "max_task_retries": 0, "max_pending_calls": MAX_PENDING_CALLS}
