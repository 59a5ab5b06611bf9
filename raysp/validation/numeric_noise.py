"""The variation of a game's values due to rounding, relative to that due to its masks. Pure numerics: `raysp.lenses.numeric_noise` measures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raysp.specs.lenses import CostClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raysp.game import Measurement
    from raysp.masks import Masks, Values
    from raysp.spectral.sets import Floats

#: What noise is compared with: the spread of values over random masks or, if every evaluation is a training, the effects of leaving out one component.
NoiseScale = Literal["values", "leave_one_out"]
#: The scale used, by the cost of an evaluation.
SCALES: dict[CostClass, NoiseScale] = {"forward": "values", "training": "leave_one_out"}
#: Noise, as a share of that spread, up to which dtype `auto` chooses bfloat16. A pair's deviation from additivity sums four values and so has twice the noise of
#: one: at this share, a tenth of the spread, which is where validation considers an interaction negligible. R² loses the share squared, 0.0025.
AUTO_SHARE = 0.05
#: The number of random masks measured, and how often each is measured again.
MASKS, REPEATS = 12, 2
#: The same if an evaluation is a training: components left out one at a time, in addition to the training on everything.
TRAININGS, TRAINING_REPEATS = 4, 1


@dataclass(frozen=True, slots=True)
class NoiseSample:
    """A few masks (bool, `(m, n)`) measured more than once.

    `first` is the plain measurement; `repeats` are measurements of the same masks in other batches and another order; `reference` is one in float32, if the game
    computes in a narrower dtype and both models fit into memory. `tokens`, `seconds` and `evaluations` are the cost of the repeats and the reference.
    """

    masks: Masks
    first: Measurement
    repeats: tuple[Measurement, ...]
    reference: Measurement | None
    tokens: int
    seconds: float

    @property
    def evaluations(self) -> int:
        """The number of evaluations in addition to the first measurement."""
        return len(self.masks) * (len(self.repeats) + (self.reference is not None))


@dataclass(frozen=True, slots=True)
class NumericNoise:
    """The numeric noise of a game: standard deviation of one value, the spread it is compared with (`scale`), and their ratio, `share`.

    `query_share` is the same ratio pooled over single queries, equal to `share` for a game without queries. `masks` were measured `repeats` more times, and in
    float32 as well if `reference`.
    """

    dtype: str
    noise: float
    spread: float
    share: float
    query_share: float
    scale: NoiseScale
    masks: int
    repeats: int
    reference: bool

    @property
    def is_small(self) -> bool:
        """Whether dtype `auto` may compute in this dtype."""
        return max(self.share, self.query_share) <= AUTO_SHARE

    def row(self) -> dict[str, Any]:
        """The figures as plain data, as in the store and in JSON."""
        return asdict(self)


def numeric_noise(sample: NoiseSample, dtype: str, scale: NoiseScale) -> NumericNoise:
    """The noise in a sample of a game that computes in `dtype`. With scale `leave_one_out` the first mask keeps everything.

    Returns the larger of two estimates: the standard deviation over repeated measurements and, with a reference, that of the differences from it over the masks
    (a common shift of all values does not change any effect).
    """
    noise, spread = _noise_and_spread(sample, scale, _values)
    share = query_share = _share(noise, spread)
    if sample.first.outputs is not None:
        query_share = _share(*_noise_and_spread(sample, scale, _outputs))
    return NumericNoise(dtype, noise, spread, share, query_share, scale, len(sample.masks), len(sample.repeats), sample.reference is not None)


def noise_masks(n: int, scale: NoiseScale, keep_probability: float, seed: int) -> Masks:
    """Masks on which to measure the noise of a game of `n` components, bool `(m, n)`: random ones, or everything and some components left out one at a time."""
    rng = np.random.default_rng([seed, 4])  # a separate random stream, so that the draws of explorer and validation do not depend on it
    if scale == "values":
        return np.unique(rng.random((MASKS, n)) < keep_probability, axis=0)
    masks = np.ones((1 + min(TRAININGS, n), n), dtype=np.bool_)
    masks[np.arange(1, len(masks)), np.sort(rng.permutation(n)[: len(masks) - 1])] = False
    return masks


def _values(measured: Measurement) -> Floats:
    return measured.values[:, None]


def _outputs(measured: Measurement) -> Floats:
    assert measured.outputs is not None, "a game with queries gives outputs with every measurement"
    return measured.outputs


def _noise_and_spread(sample: NoiseSample, scale: NoiseScale, columns: Any) -> tuple[float, float]:
    """Noise and spread of the values or outputs, as root mean squares over the columns."""
    first: Floats = columns(sample.first)
    passes = np.stack([first, *(columns(repeat) for repeat in sample.repeats)])
    noise = float(np.sqrt(passes.var(axis=0, ddof=1).mean())) if len(passes) > 1 else 0.0
    exact = first
    if sample.reference is not None:
        exact = columns(sample.reference)
        noise = max(noise, _root_mean_square((first - exact).std(axis=0, ddof=1)))
    effects = exact[0] - exact[1:] if scale == "leave_one_out" else exact.std(axis=0, ddof=1)
    return noise, _root_mean_square(effects)


def _share(noise: float, spread: float) -> float:
    """Noise over spread; if no mask changes the value, 1 if there is noise and 0 otherwise."""
    return noise / spread if spread > 0 else float(noise > 0)


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean(values**2)))


def typical_effects(singles: Values, deviations: Values) -> tuple[float, float]:
    """Median sizes of those single effects and of those deviations that are at least a tenth of the strongest single effect; 0.0 if there are none."""
    sizes, others = np.abs(singles), np.abs(deviations)
    bar = 0.1 * float(sizes.max(initial=0.0))
    found = [some[(some >= bar) & (some > 0)] for some in (sizes, others)]
    return tuple(float(np.median(some)) if len(some) else 0.0 for some in found)  # pyright: ignore[reportReturnType]  two of them
