"""Synthetic games for the benchmark of the service: functions that take as long as they are told, and cost no processor time while they wait."""

import time
from collections.abc import Callable

import numpy as np

from raysp.masks import Masks, Values
from raysp.specs.lenses import FunctionLens

#: Components with an effect; the others have none.
RELEVANT = 8


def waiting_lens(name: str, n: int, batch_masks: int, seconds: float) -> FunctionLens:
    """A lens whose function takes `seconds` for a batch, whatever its size."""
    return FunctionLens(waiting(seconds), n=n, name=name, batch_masks=batch_masks)


def waiting(seconds: float) -> Callable[[Masks], Values]:
    """A function of masks that waits before it answers."""

    def value(masks: Masks) -> Values:
        time.sleep(seconds)
        return np.asarray(masks, dtype=np.float64)[:, :RELEVANT] @ np.arange(1.0, 1.0 + min(RELEVANT, masks.shape[1]))

    return value
