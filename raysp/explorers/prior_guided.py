"""Estimation of single effects with prior guesses, such as those from a model's gradients, to reduce the number of evaluations needed.

A Bayesian linear model: the effects are a linear combination of the guesses, with free weights, plus a residual whose prior variance grows with the
magnitude of the guesses, because gradients identify strong effects more reliably than they estimate their size. The variance of the residual, and how
closely it follows the guesses, are chosen by the closed-form leave-one-out error.
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

#: Total prior variance of the residual effects relative to the noise variance, and how strongly it is concentrated on components with large guesses.
TOGETHER, TOWARDS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), (0.0, 1.0, 10.0)
#: Prior variance of the unpenalised parameters: the weights of the guesses and the intercept.
FREE = 1e3

Setting = tuple[float, float]


def guided_singles(sample: Sample, parts: Sequence[Rows], guesses: Sequence[FourierSurrogate]) -> Proposal:
    """Propose a model of single effects guided by `guesses`, which are in the basis of the sample's P(keep); only their single effects are used.

    Each fold chooses its own hyperparameters, unless there are `MANY` rows.
    """
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
    """Unit directions `(k, n)`, one per nonzero guess, and the strength that they assign to each component, `(n,)`, with mean one."""

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
        """The hyperparameters with the smallest leave-one-out error."""
        posed = _Problem.of(signals, self.directions, values, weights)
        settings = [(together, towards) for together in TOGETHER for towards in TOWARDS]
        return min(settings, key=lambda setting: posed.solve(self._prior(setting))[1])

    def fit(self, signals: Floats, values: Values, setting: Setting, weights: Values | None = None) -> tuple[float, Values]:
        """Fit the intercept and the coefficients `(n,)` of the signals `(m, n)`."""
        posed = _Problem.of(signals, self.directions, values, weights)
        found = posed.solve(self._prior(setting))[0] * posed.scale
        n = signals.shape[1]
        return float(found[-1]) + posed.middle, found[:n] + found[n:-1] @ self.directions

    def _prior(self, setting: Setting) -> Values:
        """The prior variances of the weights of signals, guesses and intercept, relative to the noise variance."""
        together, towards = setting
        rest = together / len(self.strength) * (1 + towards * self.strength) / (1 + towards)
        return np.concatenate([rest, np.full(len(self.directions) + 1, FREE)])


@dataclass(frozen=True)
class _Problem:
    """A regression on signals, guesses and an intercept: the design `(m, n + k + 1)`, and the values standardised to mean zero and variance one.

    Rows are multiplied by the square root of their weight, which equalises the noise variance of all rows.
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
        """The Gram matrix of the columns."""
        return self.design.T @ self.design

    def solve(self, prior: Values) -> tuple[Values, float]:
        """The posterior mean of the weights and the mean squared leave-one-out error, from the smaller of the primal and dual systems."""
        if len(self.design) <= self.design.shape[1]:
            inverse = np.linalg.inv((self.design * prior) @ self.design.T + np.eye(len(self.design)))
            solved = inverse @ self.target
            return prior * (self.design.T @ solved), float(np.mean((solved / np.diag(inverse)) ** 2))
        inverse = np.linalg.inv(self.products + np.diag(1 / prior))
        weights = inverse @ (self.design.T @ self.target)
        leverage = np.einsum("ij,ij->i", self.design @ inverse, self.design)
        return weights, float(np.mean(((self.target - self.design @ weights) / (1 - leverage)) ** 2))
