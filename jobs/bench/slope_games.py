"""The games of `slopes.py`: parts of the embedded model ablated, with their values and slopes kept between runs (see `kept.py`)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from jobs.bench.kept import Kept
from jobs.bench.rows import clock
from raysp.explorers.choosing import pilot_masks, resembling
from raysp.lenses.gate_gradients import slopes
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game
from raysp.masks import Masks, Values
from raysp.specs.lenses import MechanisticLens

ASKED: dict[str, Any] = {
    "prompt": "When Mary and John went to the store, John gave a drink to", "target": " Mary", "foil": " John", "value": "logit_diff", "dtype": "float32",
}  # fmt: skip
TASK: dict[str, Any] = {"task": "ioi", "task_size": 8, "value": "logit_diff", "dtype": "float32"}
#: The lenses by the names of their games.
LENSES: dict[str, dict[str, Any]] = {
    "heads-27": {**ASKED, "components": "heads:14-16"},
    "heads-54": {**ASKED, "components": "heads:12-17"},
    "heads-270": {**ASKED, "components": "heads"},
    "mlps-30": {**ASKED, "components": "mlp"},
    "neurons-72": {**ASKED, "components": "neurons:12-17", "group": 128},
    "task-54": {**TASK, "components": "heads:12-17"},
}
#: Masks of a block, and those that are timed.
BLOCK, TIMED = 64, 16


@dataclass
class SlopeGame:
    """A game by its name: values, slopes, and the seconds that each takes."""

    name: str

    @cached_property
    def lens(self) -> MechanisticGame:
        """The lens's game; the model is loaded when it is first needed."""
        return build_mechanistic_game(MechanisticLens(**LENSES[self.name]))

    @cached_property
    def values(self) -> Callable[[Masks], Values]:
        """Values of masks, `(m,)`."""
        return Kept(lambda: self.lens.info.fingerprint, lambda masks: self.lens.by_prompt(masks).mean(axis=1), BLOCK)

    @cached_property
    def _both(self) -> Callable[[Masks], Any]:
        return Kept(lambda: f"{self.lens.info.fingerprint}-slopes", self._measured, BLOCK)

    def _measured(self, masks: Masks) -> Any:
        values, found = slopes(self.lens.mask_tree, self.lens.reading, masks.astype(np.float64))
        return np.column_stack([values, found])

    def slopes(self, masks: Masks) -> Any:
        """Slopes of masks, `(m, n)`."""
        return self._both(masks)[:, 1:]

    @cached_property
    def keep(self) -> float:
        """The P(keep) that `auto` chooses."""
        pilot, kept = pilot_masks(self.lens.n, np.random.default_rng([0, 3]))
        return resembling(kept, self.values(pilot))

    @cached_property
    def seconds(self) -> tuple[float, float]:
        """Seconds of a value and of a value with slopes."""
        masks = np.random.default_rng(7).random((TIMED, self.lens.n)) < self.keep
        now, found = clock(self.lens.model.loaded.device), list[float]()
        for measure in (self.lens.by_prompt, self._measured):
            measure(masks[:4])
            began = now()
            measure(masks)
            found.append((now() - began) / TIMED)
        return found[0], found[1]


def one_thread() -> None:
    """Let torch use one thread, like the fits."""
    torch.set_num_threads(1)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the processor seconds it took."""
    began = time.process_time()
    found = function()
    return found, time.process_time() - began
