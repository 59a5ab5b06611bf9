"""What measures the masks of a run: a `Backend` is given them in batches, and answers as they are measured."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks
from raysp.runs.slopes import SlopeSample
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

# A smaller batch would not fill a model's batch, so small rounds are not split further among evaluators.
LEAST_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Packed distinct masks (uint8, `(m, ceil(n / 8))`) that a round of a phase asks for, with their positions (int32, `(m,)`) in the round.

    `slopes`: they are to be measured with slopes.
    """

    packed: NDArray[np.uint8]
    phase: str
    round: int
    positions: NDArray[np.int32]
    slopes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The measurement of some rows of a batch (usually all). `stored`: the backend has stored it; `reused`: it was not measured, but found.

    Slopes that are stored are not in the measurement.
    """

    batch: Batch
    rows: NDArray[np.intp]
    measurement: Measurement
    stored: bool = False
    reused: bool = False


class Backend(Protocol):
    """Measures batches of masks of one game."""

    info: GameInfo

    @property
    def remembers(self) -> bool:
        """Whether it looks up what is stored, stores what it measures, and records what a run reused; otherwise the run does."""
        ...

    @property
    def workers(self) -> int:
        """The number of batches measured at the same time."""
        ...

    @property
    def together(self) -> int:
        """The number of the game's batches that it is best given as one, because they take little time."""
        ...

    def measure(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """Yield answers as they arrive, until all rows of all batches are answered. `batches` is read no further than there is work for."""
        ...

    def rebuild(self, lens: AnyLens) -> None:
        """Replace the game, and `info`, by the lens's game."""
        ...

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:
        """As `raysp.lenses.numeric_noise.sample_noise`, for the game."""
        ...

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """As `Game.gradient_report`."""
        ...

    def slope_sample(self, masks: Masks) -> SlopeSample:
        """As `raysp.runs.slopes.sample_slopes`, for the game."""
        ...


#: Gives the backend that measures the game of a lens. UserError for what the lens cannot do.
BackendOf = Callable[[AnyLens], Backend]


def batches(backend: Backend, packed: NDArray[np.uint8], rows: NDArray[np.intp], phase: str, round_number: int = 0, *, slopes: bool = False) -> Iterator[Batch]:
    """Rows of packed masks in batches of the game's preferred size, or smaller ones if a worker would otherwise get fewer than two.

    Where such batches take little time, several are given together, as long as each worker still gets two.
    """
    fair = -(-len(rows) // (2 * backend.workers)) if backend.workers > 1 else len(rows)
    size = max(1, min(backend.info.batch_masks, max(LEAST_BATCH, fair)))
    start = 0
    while start < len(rows):
        together = max(1, min(backend.together, (len(rows) - start) // (2 * backend.workers * size)))
        some = rows[start : start + together * size]
        yield Batch(packed[some], phase, round_number, some.astype(np.int32), slopes)
        start += len(some)
