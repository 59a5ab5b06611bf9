"""Measure how much rounding changes a game's values: the same masks in other batches and orders and, if both models fit into memory, in float32."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from raysp.game import Game, Measurement
from raysp.lenses import build_game
from raysp.masks import Masks
from raysp.models.resident import fits_beside, is_resident, let_go
from raysp.specs.lenses import with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import REPEATS, SCALES, TRAINING_REPEATS, NoiseSample, numeric_noise


def sample_noise(lens: AnyLens, game: Game, masks: Masks, first: Measurement | None = None) -> NoiseSample:
    """Measure masks (bool, `(m, n)`) of a lens's game more than once; `first` is their plain measurement, if already known.

    Raises what `Game.measure` does, and TypeError for a lens without a model.
    """
    wide = with_dtype(lens, "float32")
    model = wide.loads
    if model is None:
        raise TypeError(f"a {lens.kind} lens has no dtype, and so no numeric noise")
    first = game.measure(masks) if first is None else first
    began = time.perf_counter()
    scale = SCALES[lens.cost_class]
    count = TRAINING_REPEATS if scale == "leave_one_out" else REPEATS
    repeats = tuple(_elsewhere(game, masks, number) for number in range(count))
    dtype = str(game.info.description["dtype"])
    held = is_resident(model)
    reference = None if dtype == "float32" or not fits_beside(model) else _in_float32(wide, game, masks)
    tokens = sum(measured.tokens for measured in (*repeats, *([reference] if reference else [])))
    sample = NoiseSample(masks, first, repeats, reference, tokens, time.perf_counter() - began)
    if reference is not None and not held and numeric_noise(sample, dtype, scale).is_small:
        let_go(model)  # if noise is large, a run switches to float32
    return sample


def _elsewhere(game: Game, masks: Masks, number: int) -> Measurement:
    """The same masks in another order and in batches of two other sizes, without caches from earlier measurements."""
    order = np.arange(len(masks))[::-1] if number == 0 else np.random.default_rng(number).permutation(len(masks))
    cut = max(len(masks) // (number + 3), 1)
    parts = [game.remeasure(masks[some]) for some in (order[:cut], order[cut:]) if len(some)]
    back = np.argsort(order)
    found = Measurement.of(parts)
    outputs = None if found.outputs is None else found.outputs[back]
    return Measurement(found.values[back], found.tokens, found.seconds, outputs)


def _in_float32(lens: AnyLens, game: Game, masks: Masks) -> Measurement | None:
    """The same masks measured by the lens's game in float32; None if that is another question because the model's greedy answer differs."""
    other = build_game(lens)
    return other.measure(masks) if _question(other.info.description) == _question(game.info.description) else None


def _question(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != "dtype"}
