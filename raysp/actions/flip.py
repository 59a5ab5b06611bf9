"""The smallest sets of components whose removal carries a value across a threshold, under a surrogate. What they do to the model is for others to measure."""

import time

import numpy as np

from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.selection import best_subset

#: Seconds for all sizes together: each size is a search of its own, and exact unless its share runs out.
SECONDS = 20.0


def flips(surrogate: FourierSurrogate, threshold: float, most: int, seconds: float = SECONDS) -> list[tuple[int, ...]]:
    """For each size up to `most`, the set whose removal moves the surrogate's value furthest towards and across `threshold`, where it does cross it.

    The smallest comes first. Sizes that are not reached within `seconds` are left out.
    """
    intact = float(surrogate.predict(np.ones((1, surrogate.n), dtype=np.bool_))[0])
    above, found, until = intact > threshold, list[tuple[int, ...]](), time.monotonic() + seconds
    for size in range(1, min(most, surrogate.n) + 1):
        left = until - time.monotonic()
        if left <= 0:
            break
        best = best_subset(surrogate, size, "decrease" if above else "increase", time_limit=left)
        if (best.value > threshold) != above:
            found.append(best.components)
    return found
