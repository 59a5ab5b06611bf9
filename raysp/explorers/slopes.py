"""Proposals for the fit that learn from slopes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from raysp.explorers.samples import Proposal, Rows, Sample
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.slope_evidence import learn
from raysp.spectral.slopes import ORDERS, SlopePosterior

#: The beginning of the names of proposals that learn from slopes.
SLOPED = "slopes"
#: Number of masks, and of mask entries (masks times components), from which two folds are predicted instead of all.
MANY, MANY_ENTRIES = 400, 40_000


def sloped(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """The Gaussian process of `spectral.slopes` with orders up to two and up to three, learnt anew in each fold: it knows no slopes of masks held out."""
    found: dict[str, Proposal] = {}
    for orders in range(2, min(sample.max_order, ORDERS) + 1):
        held_out = np.full(len(sample.values), np.nan)
        for held in parts if len(sample.values) < MANY and sample.masks.size < MANY_ENTRIES else parts[:2]:
            rest = sample.without(held)
            if rest.allows_slopes and rest.varies:
                held_out[held] = learnt(rest, orders).predict(sample.masks[held])
        if not np.isnan(held_out).all():
            found[f"{SLOPED} {orders}"] = Proposal(held_out, _once(sample, orders), sloped=True)
    return found


def _once(sample: Sample, orders: int) -> Callable[[], FourierSurrogate]:
    return cache(lambda: learnt(sample, orders).surrogate())


def learnt(sample: Sample, orders: int = ORDERS) -> SlopePosterior:
    """The process learnt from a sample that has slopes, with orders up to `orders`."""
    assert sample.slopes is not None
    return learn(sample.masks, sample.values, sample.slopes, orders, sample.keep_probability, sample.seed, sample.weights)
