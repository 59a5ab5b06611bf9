"""Single effects learnt from evaluations with prior guesses of them, such as a model's gradients, so that fewer evaluations are needed.

A Bayesian linear model. The effects are a mixture of the guesses, whose weights are free, and a rest that is expected to be the larger the larger the guesses are:
gradients are better at saying which effects are strong than how strong each is. How large the rest is, and how far it follows the guesses, is chosen by the
closed-form leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raysp.explorers.samples import MANY, Proposal, Rows, Sample
from raysp.masks import Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.regression import weighted_mean, weighted_variance
from raysp.spectral.sets import Floats, features, singletons

#: Variance of all of the rest together, of the values' noise, and how much more of it strong guesses get than weak ones.
TOGETHER, TOWARDS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.0, 1.0, 10.0)
#: Variance of what is free: the guesses' weights and the level.
FREE = 1e3

Setting = tuple[float, float]


def guided_singles(sample: Sample, parts: Sequence[Rows], guesses: Sequence[FourierSurrogate]) -> Proposal:
    """The proposed model; `guesses` are in the basis of the sample's P(keep), and only their single effects are used. Every fold chooses its own setting unless rows are many."""
    known = _Guesses.of(sample, guesses)
    signals = features(sample.masks, sample.keep_probability)
    everything = np.arange(len(sample.values))
    setting = known.best(signals, sample.values, sample.weights)
    held_out = np.full(len(sample.values), np.nan)
    for held in parts:
        rest = np.delete(everything, held)
        if not len(rest):
            continue
        counts = sample.weights_of(rest)
        chosen = setting if len(everything) >= MANY else known.best(signals[rest], sample.values[rest], counts)
        level, coefficients = known.fit(signals[rest], sample.values[rest], chosen, counts)
        held_out[held] = level + signals[held] @ coefficients

    def build() -> FourierSurrogate:
        level, coefficients = known.fit(signals, sample.values, setting, sample.weights)
        return FourierSurrogate(singletons(sample.n), np.concatenate([[level], coefficients]), keep_probability=sample.keep_probability)

    return Proposal(held_out, build, additive=True)


@dataclass(frozen=True)
class _Guesses:
    """Directions of unit length `(k, n)`, one per guess, and the strength that they give each component, `(n,)`, one on average."""

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

    def best(self, signals: Floats, values: Values, weights: Values | None = None) -> Setting:
        """The setting with the least leave-one-out error."""
        posed = _Problem.of(signals, self.directions, values, weights)
        settings = [(together, towards) for together in TOGETHER for towards in TOWARDS]
        return min(settings, key=lambda setting: posed.solve(self._prior(setting))[1])

    def fit(self, signals: Floats, values: Values, setting: Setting, weights: Values | None = None) -> tuple[float, Values]:
        """Level and coefficients `(n,)` of the signals `(m, n)`."""
        posed = _Problem.of(signals, self.directions, values, weights)
        found = posed.solve(self._prior(setting))[0] * posed.scale
        n = signals.shape[1]
        return float(found[-1]) + posed.middle, found[:n] + found[n:-1] @ self.directions

    def _prior(self, setting: Setting) -> Values:
        """Variances of the weights of signals, guesses and level, of the noise's."""
        together, towards = setting
        rest = together / len(self.strength) * (1 + towards * self.strength) / (1 + towards)
        return np.concatenate([rest, np.full(len(self.directions) + 1, FREE)])


@dataclass(frozen=True)
class _Problem:
    """Values to be explained by signals, guesses and a level: the design `(m, n + k + 1)`, and the values with mean zero and variance one.

    Rows are multiplied by the root of their weight, so that the noise is that of one measurement in each.
    """

    design: Floats
    target: Values
    middle: float
    scale: float

    @classmethod
    def of(cls, signals: Floats, directions: Floats, values: Values, weights: Values | None = None) -> _Problem:
        middle, scale = float(weighted_mean(values, weights)), float(np.sqrt(weighted_variance(values, weights))) or 1.0
        design, target = np.column_stack([signals, signals @ directions.T, np.ones(len(signals))]), (values - middle) / scale
        if weights is not None:
            root = np.sqrt(weights / weights.mean())
            design, target = design * root[:, None], target * root
        return cls(design, target, middle, scale)

    @cached_property
    def products(self) -> Floats:
        """Of the columns with one another."""
        return self.design.T @ self.design

    def solve(self, prior: Values) -> tuple[Values, float]:
        """The posterior mean of the weights and the mean squared leave-one-out error, by whichever matrix is smaller."""
        if len(self.design) <= self.design.shape[1]:
            inverse = np.linalg.inv((self.design * prior) @ self.design.T + np.eye(len(self.design)))
            solved = inverse @ self.target
            return prior * (self.design.T @ solved), float(np.mean((solved / np.diag(inverse)) ** 2))
        inverse = np.linalg.inv(self.products + np.diag(1 / prior))
        weights = inverse @ (self.design.T @ self.target)
        leverage = np.einsum("ij,ij->i", self.design @ inverse, self.design)
        return weights, float(np.mean(((self.target - self.design @ weights) / (1 - leverage)) ** 2))
