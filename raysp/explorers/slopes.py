"""Learning from slopes: a proposal for the fit, and whether slopes are worth their price."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from raysp.explorers.samples import Proposal, Rows, Sample
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.slope_evidence import learn
from raysp.spectral.slopes import SlopePosterior

#: Number of masks above which two folds are predicted instead of all.
MANY = 400


def sloped(sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
    """The Gaussian process of `spectral.slopes`, learnt anew in each fold: of the masks held out, it knows neither values nor slopes."""
    held_out = np.full(len(sample.values), np.nan)
    for held in parts if len(sample.values) < MANY else parts[:2]:
        rest = sample.without(held)
        if rest.allows_slopes and rest.varies:
            held_out[held] = _learnt(rest).predict(sample.masks[held])
    if np.isnan(held_out).all():
        return {}

    @cache
    def build() -> FourierSurrogate:
        return _learnt(sample).surrogate()

    return {"slopes": Proposal(held_out, build, sloped=True)}


def _learnt(sample: Sample) -> SlopePosterior:
    assert sample.slopes is not None
    return learn(sample.masks, sample.values, sample.slopes, sample.max_order, sample.keep_probability, sample.seed, sample.weights)
