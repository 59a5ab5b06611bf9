"""The residual variance of values under the prior of `kernel`: what no set of components explains.

Part of it is the same for all masks. The rest depends on the share x of the components that a mask removes, as x^g (1 - x)^h: functions are rougher far from the
intact and from the empty mask, where many interactions come together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raysp.masks import Values
from raysp.spectral.sets import Floats

#: Initial values of the parameters.
FIRST_FLAT, FIRST_SIZED, FIRST_EXPONENTS = 0.005, 0.4, (1.0, 1.0)
#: Minimum noise variance, relative to the variance of the values; it keeps the factorisation stable for noiseless games.
LEAST_NOISE = 1e-6
#: The smallest share whose logarithm is taken.
LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class Noise:
    """The noise variance `flat` + `sized` · x^g (1 - x)^h of a row of mean weight, with `exponents` (g, h). The four are positive."""

    flat: float = FIRST_FLAT
    sized: float = FIRST_SIZED
    exponents: tuple[float, float] = FIRST_EXPONENTS

    def variances(self, shares: Values, weights: Values | None = None) -> Values:
        """The noise variance of each row, float64 `(m,)`, given the `shares` of components it removes and its weight (`(m,)`; None: equal)."""
        return (self.flat + LEAST_NOISE + self.sized * self._shape(shares)) * noise_shares(weights)

    def gradient(self, shares: Values, slopes: Values, weights: Values | None = None) -> Floats:
        """The sum of `slopes` (`(m,)`) times the noise variances, differentiated in the logarithms of the four parameters, float64 `(4,)`."""
        slopes = slopes * noise_shares(weights)
        sized = slopes * self.sized * self._shape(shares)
        by_removed, by_kept = (float(sized @ _logarithm(part)) * exponent for part, exponent in zip((shares, 1 - shares), self.exponents, strict=True))
        return np.array([float(slopes.sum()) * self.flat, float(sized.sum()), by_removed, by_kept])

    def scaled(self, factor: float) -> Noise:
        """The noise times a factor."""
        return replace(self, flat=self.flat * factor, sized=self.sized * factor)

    @property
    def logarithms(self) -> Floats:
        """The logarithms of the four parameters."""
        return np.log([self.flat, self.sized, *self.exponents])

    @classmethod
    def of(cls, logarithms: Floats) -> Noise:
        """The noise with these logarithms of its parameters."""
        flat, sized, removed, kept = np.exp(logarithms).tolist()
        return cls(flat, sized, (removed, kept))

    def _shape(self, shares: Values) -> Values:
        return np.exp(self.exponents[0] * _logarithm(shares) + self.exponents[1] * _logarithm(1 - shares))


def noise_shares(weights: Values | None) -> Values | float:
    """The noise variance of each row (`(m,)`) relative to a row of mean weight: the mean of w measurements has 1/w of the noise variance of one."""
    return 1.0 if weights is None else weights.mean() / weights


def _logarithm(share: Values) -> Values:
    return np.log(np.maximum(share, LEAST_SHARE))
