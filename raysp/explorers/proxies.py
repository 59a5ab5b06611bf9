"""Proxies: cheap models of a game, trained on its evaluations and handed over as Fourier sums.

A proxy proposes; the fit that follows (see `fitting`) keeps of it what predicts held-out masks. To add one, write a function with the
signature of `Proxy` and enter it in `PROXIES`.
"""

from __future__ import annotations

from typing import Protocol

from raysp.game import Masks, Values
from raysp.spectral.fourier import FourierSurrogate

#: Masks times components up to which a second, deeper ensemble is tried.
DEEP_ENTRIES = 12_000
#: Depths of the shallow and the deep ensemble.
SHALLOW, DEEP = 3, 5


class Proxy(Protocol):
    """What every proxy does."""

    def __call__(self, masks: Masks, values: Values, held_out: tuple[Masks, Values], max_order: int, seed: int) -> FourierSurrogate:
        """A model trained on masks (bool `(m, n)`) and values, tuned on the held-out part, as a Fourier sum of orders up to `max_order`."""
        ...


def trees(masks: Masks, values: Values, held_out: tuple[Masks, Values], max_order: int, seed: int) -> FourierSurrogate:
    """Boosted trees (LightGBM, early stopping); deeper ones too where they cost little, whichever predicts the held-out part better."""
    import numpy as np

    from raysp.spectral.trees import booster_transform, train_booster

    depths = {min(SHALLOW, max_order)} | ({min(DEEP, max_order)} if masks.size <= DEEP_ENTRIES else set[int]())
    best: tuple[float, FourierSurrogate] | None = None
    for depth in sorted(depths):
        booster, rounds = train_booster(masks, values, held_out, depth=depth, seed=seed)
        found = booster_transform(booster, masks.shape[1], rounds)
        error = float(np.mean((held_out[1] - found.predict(held_out[0])) ** 2))
        if best is None or error < best[0]:
            best = (error, found)
    assert best is not None
    return best[1]


#: The proxies by name.
PROXIES: dict[str, Proxy] = {"trees": trees}
