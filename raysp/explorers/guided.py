"""Single effects learnt from evaluations with guesses of them at hand, such as a model's gradients: what the guesses know need not be bought again.

A Bayesian linear model. The effects are a mixture of the guesses, whose weights are free, and a rest that is expected to be the larger the larger the guesses are:
gradients are better at saying which effects are strong than how strong each is. How large the rest is, and how far the guesses say where, is chosen by the
closed-form leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.explorers.samples import MANY, Proposal, Rows, Sample
from raysp.game import Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats, features, singletons

#: Variance of all of the rest together, of the values' noise, and how much more of it strong guesses get than weak ones.
TOGETHER, TOWARDS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.0, 1.0, 10.0)
#: Variance of what is free: the guesses' weights and the level.
FREE = 1e3

Setting = tuple[float, float]


def guided_singles(sample: Sample, parts: Sequence[Rows], guesses: Sequence[FourierSurrogate]) -> Proposal:
    """The model on offer; `guesses` are of the sample's P(keep), and only their single effects count. Its setting is chosen anew in every fold, unless rows are many."""
    known = _Guesses.of(sample, guesses)
    signals = features(sample.masks, sample.keep_probability)
    everything = np.arange(len(sample.values))
    setting = known.best(signals, sample.values)
    held_out = np.full(len(sample.values), np.nan)
    for held in parts:
        rest = np.delete(everything, held)
        if not len(rest):
            continue
        chosen = setting if len(everything) >= MANY else known.best(signals[rest], sample.values[rest])
        level, coefficients = known.fit(signals[rest], sample.values[rest], chosen)
        held_out[held] = level + signals[held] @ coefficients

    def build() -> FourierSurrogate:
        level, coefficients = known.fit(signals, sample.values, setting)
        return FourierSurrogate(singletons(sample.n), np.concatenate([[level], coefficients]), keep_probability=sample.keep_probability)

    return Proposal(held_out, build, additive=True)


@dataclass(frozen=True)
class _Guesses:
    """Directions of unit length `(k, n)`, a guess each, and how strong they say each component is, `(n,)`, one on average."""

    directions: Floats
    strength: Values

    @classmethod
    def of(cls, sample: Sample, guesses: Sequence[FourierSurrogate]) -> _Guesses:
        found = np.zeros((len(guesses), sample.n))
        for row, guess in zip(found, guesses, strict=True):
            for members, value in guess.terms().items():
                if len(members) == 1:
                    row[members[0]] = value
        lengths = np.linalg.norm(found, axis=1)
        directions = found[lengths > 0] / lengths[lengths > 0, None]
        strength = sample.n * (directions**2).mean(axis=0) if len(directions) else np.ones(sample.n)
        return cls(directions, strength)

    def best(self, signals: Floats, values: Values) -> Setting:
        """The setting with the least leave-one-out error."""
        settings = [(together, towards) for together in TOGETHER for towards in TOWARDS]
        return min(settings, key=lambda setting: self._solve(signals, values, setting)[1])

    def fit(self, signals: Floats, values: Values, setting: Setting) -> tuple[float, Values]:
        """Level and coefficients `(n,)` of the signals `(m, n)`."""
        found = self._solve(signals, values, setting)[0]
        n = signals.shape[1]
        return float(found[-1]), found[:n] + found[n:-1] @ self.directions

    def _solve(self, signals: Floats, values: Values, setting: Setting) -> tuple[Values, float]:
        """The posterior mean of all weights (signals, guesses, level) and the mean squared leave-one-out error, by whichever matrix is smaller."""
        together, towards = setting
        n, scale = signals.shape[1], float(values.std()) or 1.0
        rest = together / n * (1 + towards * self.strength) / (1 + towards)
        prior = np.concatenate([rest, np.full(len(self.directions) + 1, FREE)])
        design = np.column_stack([signals, signals @ self.directions.T, np.ones(len(signals))])
        middle = float(values.mean())
        target = (values - middle) / scale
        if len(design) <= design.shape[1]:
            inverse = np.linalg.inv((design * prior) @ design.T + np.eye(len(design)))
            solved = inverse @ target
            weights, errors = prior * (design.T @ solved), solved / np.diag(inverse)
        else:
            inverse = np.linalg.inv(design.T @ design + np.diag(1 / prior))
            weights = inverse @ (design.T @ target)
            leverage = np.einsum("ij,ij->i", design @ inverse, design)
            errors = (target - design @ weights) / (1 - leverage)
        weights *= scale
        weights[-1] += middle
        return weights, float(np.mean(errors**2))
