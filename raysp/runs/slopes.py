"""The price of slopes in a game, for runs and plans: read from the store, or measured once and stored, so that a run that is repeated pays the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raysp.errors import EvaluationError
from raysp.masks import check_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from raysp.explorers.base import Explorer
    from raysp.game import Game, GameInfo, Measurement
    from raysp.masks import Masks
    from raysp.runs.run_store import RunStore

#: The number of masks that are timed with and without slopes.
TIMED = 8
#: What a value with slopes costs in values without, in most games: a forward and a backward pass. Measured times below so many seconds say nothing else.
USUAL_PRICE, LEAST_SECONDS = 2.4, 0.1


@dataclass(frozen=True, slots=True)
class SlopeSample:
    """Masks measured with slopes, how many times as long that takes as measuring their values alone, roughly (`price`, at least 1), and the cost of the latter.

    `evaluations`, `tokens` and `seconds` do not include the measurement with slopes.
    """

    masks: Masks
    measured: Measurement
    price: float
    evaluations: int
    tokens: int
    seconds: float


def sample_slopes(game: Game, masks: Masks) -> SlopeSample:
    """Time the masks (bool, `(m, n)`) with and without slopes. Raises as `Game.measure`."""
    # What is loaded or computed once must not be part of the price.
    first = [game.measure(masks[:1], slopes=slopes) for slopes in (False, True)]
    alone, together = game.measure(masks), game.measure(masks, slopes=True)
    price = _rounded(together.seconds / alone.seconds) if alone.seconds > LEAST_SECONDS else USUAL_PRICE
    others = [*first, alone]
    tokens, seconds = sum(each.tokens for each in others), sum(each.seconds for each in others)
    return SlopeSample(masks, together, price, len(masks) + len(first), tokens, seconds)


def _rounded(price: float) -> float:
    """The nearest of the usual price times powers of two, but not below 1: a run must not depend on how busy a machine was for a moment."""
    return max(USUAL_PRICE * 2.0 ** round(log2(max(price, 1.0) / USUAL_PRICE)), 1.0)


class HasSlopes(Protocol):
    """The part of a backend that measures prices."""

    info: GameInfo

    def slope_sample(self, masks: Masks) -> SlopeSample:
        """As `sample_slopes`."""
        ...


@dataclass
class SlopePrice:
    """The price of a value with slopes in values without. `sample` is what was measured to find it; None if it was found in the store."""

    store: RunStore
    backend: HasSlopes
    sample: SlopeSample | None = field(default=None, init=False)

    def inform(self, explorer: Explorer, masks: Callable[[], Masks]) -> Explorer:
        """The started explorer, given the price if the game has slopes and the explorer can use them; `masks` gives some that it is certain to ask for."""
        if not self.backend.info.slopes or not explorer.uses_slopes:
            return explorer
        return explorer.with_slopes(self._price(masks))

    def _price(self, masks: Callable[[], Masks]) -> float:
        fingerprint = self.backend.info.fingerprint
        known = self.store.slope_price(fingerprint)
        if known is not None:
            return known
        certain = masks()
        # Single ablations may share computations, which most of the masks to come do not.
        several = certain[(~certain).sum(axis=1) > 1][:TIMED]
        self.sample = self.backend.slope_sample(several if len(several) else certain[:TIMED])
        if self.store.read_only:
            return self.sample.price
        self.store.add_slope_price(self.backend.info, self.sample.price)
        # Another run of this game may have been the first.
        return self.store.slope_price(fingerprint) or self.sample.price

    def store_sample(self, payer: str) -> None:
        """Store what was measured to find the price, as paid by a run or a plan. EvaluationError for what is not finite."""
        sample, info = self.sample, self.backend.info
        if sample is None or self.store.read_only:
            return
        found = sample.measured
        self.store.add_evaluations(
            payer,
            "calibrate",
            sample.masks,
            check_finite(sample.masks, found.values),
            outputs=found.outputs,
            slopes=checked_slopes(info, sample.masks, found.slopes),
            game_id=self.store.register_game(info),
            tokens=found.tokens,
            seconds=found.seconds,
        )
        self.store.add_cost(payer, "calibrate", evaluations=sample.evaluations, tokens=sample.tokens, seconds=sample.seconds)


def checked_slopes(info: GameInfo, masks: Masks, slopes: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The slopes (float32, `(m, queries, n)`) that a game gave for masks. EvaluationError if any are not finite, ValueError for another shape."""
    expected = (len(masks), max(len(info.queries), 1), info.n)
    if slopes is None or slopes.shape != expected:
        raise ValueError(f"a game gave slopes of shape {None if slopes is None else slopes.shape}; expected {expected}")
    try:
        check_finite(masks, slopes.sum(axis=(1, 2), dtype=np.float64))
    except EvaluationError as error:
        raise EvaluationError(f"slopes: {error}") from None
    return slopes
