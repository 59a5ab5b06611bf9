"""The actor that holds resident models and measures batches of masks, whatever a measurement costs: a forward pass, or a training.

It knows lenses only as something that can be built. Its constructor does nothing that can fail: the first call that needs a model loads it, so a failed
load is an ordinary failed call, and a restarted actor loads again by itself.
"""

import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from raysp.blobs import blobs_from
from raysp.errors import DoesNotFitError, EvaluationError
from raysp.game import Game, GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.lenses import build_game
from raysp.masks import unpack
from raysp.runs.slopes import SlopeSample, sample_slopes
from raysp.runtime.logs import described, log_to_stderr
from raysp.runtime.shape import Shape
from raysp.specs.lenses import FeatureLens, with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

T = TypeVar("T")
#: Games kept ready beside the resident models; each holds a tokenised prompt and a small cache, and keeps its model in memory.
GAMES_KEPT = 64
#: More calls than this waiting for one evaluator mean that a scheduler has lost count.
MAX_PENDING_CALLS = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulse:
    """What an evaluator tells about itself: its shape, its node, the number of the lease that it is measuring, and the models (and functions, by fingerprint) that it holds."""

    shape: Shape | None
    node: str
    begun: int | None
    resident: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShippedLens:
    """A lens on its way to evaluators, with the content that it refers to, by SHA-256."""

    lens: AnyLens
    content: Mapping[str, bytes]


AskedLens = AnyLens | ShippedLens


class Evaluator:
    """Resident models, and the games built on them. `evaluator_actor` makes an actor of it."""

    def __init__(self, name: str, threads: int | None, shape: Shape | None = None) -> None:
        log_to_stderr()
        self.name, self._threads, self._shape = name, threads, shape
        self._begun: int | None = None
        self._games: OrderedDict[tuple[str, str], Game] = OrderedDict()
        self._models: dict[tuple[str, str], str] = {}
        self._ready = False

    def __repr__(self) -> str:
        """What the Ray dashboard shows of it, which Ray asks for once: the tasks are named for what they measure."""
        return f"{self.name} (holds models and measures masks{', ' + self._shape.each if self._shape else ''})"

    @ray.method(concurrency_group="pulse", enable_task_events=False)
    def pulse(self) -> Pulse:
        """What the evaluator is at. Answered at once, whatever it is measuring."""
        models = {self._models.get(game, game[1]) for game in list(self._games)}
        return Pulse(self._shape, ray.get_runtime_context().get_node_id(), self._begun, tuple(sorted(models)))

    def describe(self, key: str, lens: AskedLens) -> GameInfo:
        """The game of a lens. It is always built afresh, as files that the lens names may have changed. UserError for what the lens cannot do."""
        return self._build(key, lens).info

    def preview(self, key: str, lens: AskedLens) -> dict[str, Any]:
        """A feature lens's prompt in pieces, and the tokens that its model would say next. UserError for what the lens cannot do."""
        from raysp.lenses.preview import preview

        asked = plain(lens)
        assert asked.key == key
        assert isinstance(asked, FeatureLens)
        self._prepare(asked)
        with content_of(lens):
            return self._making_room(lambda: preview(asked))

    def gradient_report(self, key: str, lens: AskedLens, fingerprint: str, max_order: int = 1) -> GradientReport:
        """What gradients say about a lens's game, as `Game.gradient_report`."""
        return self._game(key, lens, fingerprint).gradient_report(max_order)

    def noise_sample(self, key: str, lens: AskedLens, fingerprint: str, packed: NDArray[np.uint8], first: Measurement | None) -> NoiseSample:
        """Packed masks of a lens's game measured more than once, as `sample_noise`."""
        from raysp.lenses.numeric_noise import sample_noise

        game = self._game(key, lens, fingerprint)
        with content_of(lens):  # the game may be built once more, in float32
            return self._making_room(lambda: sample_noise(plain(lens), game, unpack(packed, game.n), first), keeping=(key, fingerprint))

    def slope_sample(self, key: str, lens: AskedLens, fingerprint: str, packed: NDArray[np.uint8]) -> SlopeSample:
        """Packed masks of a lens's game measured with slopes and without, as `sample_slopes`."""
        game = self._game(key, lens, fingerprint)
        return self._making_room(lambda: sample_slopes(game, unpack(packed, game.n)), keeping=(key, fingerprint))

    def measure(  # noqa: PLR0917  as a lease says it
        self, key: str, lens: AskedLens, fingerprint: str, packed: NDArray[np.uint8], lease: int | None = None, slopes: bool = False
    ) -> Measurement:
        """Values, and if requested slopes, of packed masks of a lens's game, which may be measured more than once. `lease` is the number under which `pulse` names the work.

        More masks than the game prefers are measured batch by batch.
        """
        self._begun = lease
        about = {"evaluator": self.name, "lease": lease, "fingerprint": fingerprint, "masks": len(packed)}
        log.debug("lease begun", extra=about)
        try:
            game = self._game(key, lens, fingerprint)
            size = game.info.batch_masks
            batches = (unpack(packed[start : start + size], game.n) for start in range(0, len(packed), size))
            return Measurement.of([self._making_room(partial(game.measure, batch, slopes=slopes), keeping=(key, fingerprint)) for batch in batches])
        except Exception as error:
            log.warning("lease failed", extra=about | {"exception": described(error)})
            raise
        finally:
            self._begun = None

    def _game(self, key: str, lens: AskedLens, fingerprint: str) -> Game:
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

    def _build(self, key: str, lens: AskedLens) -> Game:
        shipped, lens, began = lens, plain(lens), time.monotonic()
        self._prepare(lens)
        with content_of(shipped):
            game: Game = self._making_room(lambda: build_game(lens))
        about = {"evaluator": self.name, "fingerprint": game.info.fingerprint, "seconds": round(time.monotonic() - began, 3)}
        log.info("game built", extra=about)
        self._games[key, game.info.fingerprint] = game
        self._games.move_to_end((key, game.info.fingerprint))
        settled = with_dtype(lens, str(game.info.description.get("dtype")))
        if settled != lens:  # from here on evaluators are given the dtype that `auto` resolved to
            self._games[settled.key, game.info.fingerprint] = game
        while len(self._games) > GAMES_KEPT:
            self._games.popitem(last=False)
        mine = model_of(lens) or game.info.fingerprint
        self._models = {key: mine if key[0] in (lens.key, settled.key) else self._models.get(key, key[1]) for key in self._games}
        return game

    def _prepare(self, lens: AnyLens) -> None:
        """Use the threads that this evaluator was given, from the first lens on that computes in PyTorch."""
        if not self._ready and self._threads is not None and lens.uses_torch:
            from raysp.models.threads import set_threads

            set_threads(self._threads)
            self._ready = True

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
            log.warning("memory ran out, and the games used less recently are dropped", extra={"evaluator": self.name})
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


def plain(lens: AskedLens) -> AnyLens:
    """The lens, however it came."""
    return lens.lens if isinstance(lens, ShippedLens) else lens


def content_of(lens: AskedLens) -> AbstractContextManager[None]:
    """Within the block, what the lens refers to is known."""
    return blobs_from((lens.content if isinstance(lens, ShippedLens) else {}).get)


def model_of(lens: AnyLens) -> str | None:
    """The model that a lens's game needs, by name; None for a function."""
    return None if lens.loads is None else lens.loads.model


# Evaluators that die are not restarted by Ray: the pool starts others, where there is room.
_remote: Any = ray.remote
evaluator_actor: Any = _remote(concurrency_groups={"pulse": 1}, max_restarts=0, max_task_retries=0, max_pending_calls=MAX_PENDING_CALLS)(Evaluator)
