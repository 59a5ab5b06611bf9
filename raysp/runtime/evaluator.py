"""The actor that holds resident models and measures batches of masks.

It knows lenses only as something that can be built. Its constructor does nothing that can fail: the first call that needs a model loads it, so a failed
load is an ordinary failed call, and a restarted actor loads again by itself.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from raysp.errors import DoesNotFitError, EvaluationError
from raysp.game import Game, GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.lenses import build_game
from raysp.masks import unpack
from raysp.specs.lenses import with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

T = TypeVar("T")
#: Games kept ready beside the resident models; each holds a tokenised prompt and a small cache, and keeps its model in memory.
GAMES_KEPT = 64
#: More calls than this waiting for one evaluator mean that a scheduler has lost count.
MAX_PENDING_CALLS = 256


class Evaluator:
    """Resident models, and the games built on them. `evaluator_actor` makes an actor of it."""

    def __init__(self, name: str, threads: int | None) -> None:
        self.name, self._threads = name, threads
        self._games: OrderedDict[tuple[str, str], Game] = OrderedDict()
        self._ready = False

    def __repr__(self) -> str:
        """The name that the Ray dashboard shows."""
        return self.name

    def ping(self) -> str:
        """The evaluator's name, once it runs."""
        return self.name

    def describe(self, key: str, lens: AnyLens) -> GameInfo:
        """The game of a lens. It is always built afresh, as files that the lens names may have changed. UserError for what the lens cannot do."""
        return self._build(key, lens).info

    def gradient_report(self, key: str, lens: AnyLens, fingerprint: str, max_order: int = 1) -> GradientReport:
        """What gradients say about a lens's game, as `Game.gradient_report`."""
        return self._game(key, lens, fingerprint).gradient_report(max_order)

    def noise_sample(self, key: str, lens: AnyLens, fingerprint: str, packed: NDArray[np.uint8], first: Measurement | None) -> NoiseSample:
        """Packed masks of a lens's game measured more than once, as `sample_noise`."""
        from raysp.lenses.numeric_noise import sample_noise

        game = self._game(key, lens, fingerprint)
        return self._making_room(lambda: sample_noise(lens, game, unpack(packed, game.n), first), keeping=(key, fingerprint))

    def measure(self, key: str, lens: AnyLens, fingerprint: str, packed: NDArray[np.uint8]) -> Measurement:
        """Values of packed masks of a lens's game. Measuring the same masks twice does no harm."""
        game = self._game(key, lens, fingerprint)
        return self._making_room(lambda: game.measure(unpack(packed, game.n)), keeping=(key, fingerprint))

    def _game(self, key: str, lens: AnyLens, fingerprint: str) -> Game:
        """The game that was described elsewhere, built here at first use. EvaluationError if the lens gives another game here."""
        game = self._games.get((key, fingerprint)) or self._build(key, lens)
        if game.info.fingerprint != fingerprint:
            computes = f" (here {game.info.description['dtype']})" if "dtype" in game.info.description else ""
            raise EvaluationError(
                f"{self.name} builds another game from the question than the one that was started: a file that the question names has changed since, "
                f"or nodes compute in different dtypes{computes}; start the run again with an explicit dtype and device"
            )
        self._games.move_to_end((key, fingerprint))
        return game

    def _build(self, key: str, lens: AnyLens) -> Game:
        if not self._ready and self._threads is not None and lens.uses_torch:
            from raysp.models.threads import set_threads

            set_threads(self._threads)
            self._ready = True
        game: Game = self._making_room(lambda: build_game(lens))
        self._games[key, game.info.fingerprint] = game
        self._games.move_to_end((key, game.info.fingerprint))
        settled = with_dtype(lens, str(game.info.description.get("dtype")))
        if settled != lens:  # from here on evaluators are given the dtype that `auto` resolved to
            self._games[settled.key, game.info.fingerprint] = game
        while len(self._games) > GAMES_KEPT:
            self._games.popitem(last=False)
        return game

    def _making_room(self, call: Callable[[], T], keeping: tuple[str, str] | None = None) -> T:
        """The result of a call. While memory runs out, the half of the other games that was used less recently is dropped, and models that only they used."""
        while True:
            try:
                return call()
            except (RuntimeError, EvaluationError, DoesNotFitError) as error:
                others = self._others(keeping)
                if not _ran_out(error) or not others:
                    raise
            # After the block, in which the error's traceback would keep what did not fit in memory.
            leaving = {id(game) for game in others[: -(-len(others) // 2)]}
            del others
            for key in [key for key, game in self._games.items() if id(game) in leaving]:
                del self._games[key]
            gc.collect()

    def _others(self, keeping: tuple[str, str] | None) -> list[Game]:
        """The games apart from one, each once, the least recently used first."""
        kept = None if keeping is None else self._games.get(keeping)
        used = {id(game): game for game in reversed(self._games.values()) if game is not kept}
        return list(used.values())[::-1]


def _ran_out(error: BaseException) -> bool:
    from raysp.models.memory import is_out_of_memory

    return any(is_out_of_memory(each) for each in (error, error.__cause__) if each is not None)


evaluator_actor: Any = ray.remote(Evaluator)
OPTIONS = {"max_restarts": -1, "max_task_retries": 0, "max_pending_calls": MAX_PENDING_CALLS}
