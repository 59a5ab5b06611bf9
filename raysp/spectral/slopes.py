r"""A Gaussian process on masks that is conditioned on values and on slopes.

A slope g_i(m) is the derivative of the value in the gate of component i at mask m. Every coefficient F(S) has the prior of `kernel` without local sets and
spikes, v(S) = a_|S| prod_{i in S} ρ_i for orders up to three. With φ_i = (p - m_i) s, s = 1 / sqrt(p (1 - p)), the derivative of the multilinear function is

    ∂_i f(m) = -s sum_{S ∋ i} F(S) φ_{S \ i}(m)

and all covariances between values and derivatives are products of ρ_i φ_i φ'_i and elementary symmetric polynomials (`Covariance`): a product of the whole
matrix with a vector costs O(m² n) operations for m masks, although it has m (n + 1) rows, so the system is solved by conjugate gradients.

A slope is not the derivative of the multilinear function, only related to it, as a model is not linear in its gates:

    g_i(m) = c (∂_i f(m) + h_i(m) + u_i φ_i(m) + noise)

with a rate c, a process h_i of its own with `doubt` times the variance of ∂_i f, a curvature u_i (the slope at an open gate differs from that at a closed
one), and a noise variance t_i for each component. All of these are learnt in `slope_evidence`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.growth import strong_terms, strongest_extensions
from raysp.spectral.kernel import MEAN_VARIANCE
from raysp.spectral.noise import LEAST_NOISE, noise_shares
from raysp.spectral.regression import moments
from raysp.spectral.sets import Block, Floats, features, merge, products

#: The largest order of the process.
ORDERS = 3
#: Relative residual and number of iterations at which conjugate gradients stop.
TOLERANCE, MOST_ITERATIONS = 1e-2, 50
#: The most sets extended by one component.
PARENTS = 10_000
#: What the Fourier form may omit of the variance of the posterior mean.
LEFT_OUT = 1e-4
#: The largest share of slopes left out as incredible.
MOST_LEFT_OUT = 0.1


@dataclass(frozen=True)
class SlopePrior:
    """The prior, for values with mean zero and variance one and slopes in the same unit.

    `relevances` `(n,)`; `scales` `(3,)` of orders one to three, zero for those left out; `noise` the variance of a value that the process leaves unexplained;
    for slopes `slope_noise` and `curvature`, `(n,)` each, `doubt`, and the `rate` c, by which slopes are divided.
    """

    relevances: Floats
    scales: Floats
    slope_noise: Floats
    curvature: Floats
    noise: float = 0.03
    doubt: float = 0.01
    rate: float = 1.0
    keep_probability: float = 0.5

    @property
    def steepness(self) -> float:
        """s: the derivative of a feature in its gate, without its sign."""
        return float(1 / np.sqrt(self.keep_probability * (1 - self.keep_probability)))

    def variances(self, block: Block) -> Floats:
        """The prior variances v(S) of the sets of a block, float64 `(len(block),)`."""
        return self.scales[block.shape[1] - 1] * self.relevances[block].prod(axis=1)

    def rated(self, rate: float) -> SlopePrior:
        """The prior if the slopes it was learnt from are `rate` times the derivatives of the values."""
        square = rate**2
        return replace(self, scales=self.scales / square, slope_noise=self.slope_noise / square, curvature=self.curvature / square, rate=self.rate * rate)


class Covariance:
    """The prior covariance between the functions at masks `left` and values and derivatives at masks `right`, given by their features.

    With z_l = ρ_l φ_l φ'_l, the derivative of e_k(z) in a gate is that of z_i times e_{k-1} of the other z, which is e_{k-1} - z_i e_{k-2} + z_i² e_{k-3}.
    """

    def __init__(self, prior: SlopePrior, left: Floats, right: Floats) -> None:
        self.prior, self.left, self.right = prior, left, right
        #: ρ_i φ_i at `left`, and its square; the squares and cubes of the features at `right`.
        self.scaled = left * prior.relevances
        self.scaled_squares, self.squares = self.scaled * self.scaled, right * right
        self.cubes = self.squares * right
        first, second, third = prior.scales
        one, two, three = symmetric(left, right, prior.relevances)
        #: Between values, `(m, m')`; the factors of the derivative in one gate before and after another component is taken out.
        self.values: Floats = MEAN_VARIANCE + first * one + second * two + third * three
        self.whole: Floats = first + second * one + third * two
        self.reduced: Floats = second + third * one

    def _weighed(self, slopes: Floats) -> tuple[Floats, Floats, Floats]:
        """sum_j ρ_j φ_j A_j z_j^k for k = 0, 1, 2, `(m, m')` each, where A are the weights of the derivatives at `right`."""
        once, twice = self.scaled_squares @ (slopes * self.right).T, (self.scaled_squares * self.scaled) @ (slopes * self.squares).T
        return self.scaled @ slopes.T, once, twice

    def of_values(self, weights: Values | None, slopes: Floats | None) -> Values:
        """Covariances of values at `left` with the sums of values and derivatives at `right` that have these weights, `(m',)` and `(m', n)`."""
        found = np.zeros(len(self.left)) if weights is None else self.values @ weights
        if slopes is not None:
            plain, once, twice = self._weighed(slopes)
            plain *= self.whole
            plain -= self.reduced * once
            found -= self.prior.steepness * (plain.sum(axis=1) + self.prior.scales[2] * twice.sum(axis=1))
        return found

    def of_slopes(self, slopes: Floats, doubt: float = 0.0) -> Floats:
        """Covariances of derivatives at `left` with the sum of derivatives at `right`, `(m, n)`; those of a component with itself 1 + `doubt` times."""
        prior, right, scaled, triple = self.prior, self.right, self.scaled, self.prior.scales[2]
        plain, across = scaled @ slopes.T, slopes * right
        # Twice in `others`: from leaving out the component itself, and from what that leaves out of the polynomials.
        own, bent = scaled * (self.reduced @ across), self.scaled_squares * (triple * np.einsum("mi,mi->i", slopes, self.squares))
        itself = self.whole @ slopes - own + bent
        others = (self.reduced * plain) @ right - own + 2 * bent
        if triple > 0:
            others -= triple * ((self.scaled_squares @ across.T) @ right + scaled * (plain @ self.squares))
        return prior.steepness**2 * prior.relevances * ((1 + doubt) * itself + others)

    def of_slopes_with_values(self, weights: Values) -> Floats:
        """Covariances of derivatives at `left` with the sum of values at `right`, `(m, n)`."""
        prior, column = self.prior, weights[:, None]
        found = self.whole @ (column * self.right) - self.scaled * (self.reduced @ (column * self.squares))
        return -prior.steepness * prior.relevances * (found + prior.scales[2] * self.scaled_squares * (weights @ self.cubes))


def symmetric(left: Floats, right: Floats, relevances: Floats) -> tuple[Floats, Floats, Floats]:
    """The elementary symmetric polynomials of orders 1, 2 and 3 of ρ_l φ_l φ'_l, `(m, m')` each."""
    one, other, scaled = left * relevances, right.T, left * relevances
    powers: list[Floats] = []
    for _ in range(3):
        powers.append(scaled @ other)
        scaled, other = scaled * one, other * right.T
    first, second, third = powers
    two = (first * first - second) / 2
    return first, two, (two * first - first * second + third) / 3


class SlopePosterior:
    """The process conditioned on masks (bool `(m, n)`), values `(m,)`, slopes (`(m, n)`, NaN where unknown) and weights (`(m,)`; None: equal)."""

    def __init__(self, prior: SlopePrior, masks: Masks, values: Values, slopes: Floats, weights: Values | None = None) -> None:
        self.prior = prior
        self.mean, self.scale = moments(values, weights)
        self.signals = features(masks, prior.keep_probability)
        at = sloped(slopes)
        self.sloped = self.signals[at]
        shares = np.broadcast_to(noise_shares(weights), len(values))
        self.weights, self.slopes = _solved(
            prior, self.signals, self.sloped, (values - self.mean) / self.scale, slopes[at] / (self.scale * prior.rate), (shares, shares[at])
        )

    def predict(self, masks: Masks) -> Values:
        """Posterior means (float64, `(m,)`) of the values of masks (bool, `(m, n)`)."""
        fresh = features(masks, self.prior.keep_probability)
        by_values = Covariance(self.prior, fresh, self.signals).of_values(self.weights, None)
        return self.mean + self.scale * (by_values + Covariance(self.prior, fresh, self.sloped).of_values(None, self.slopes))

    def surrogate(self) -> FourierSurrogate:
        """The posterior mean as a Fourier sum without its weakest terms."""
        n, orders = self.prior.relevances.size, int(np.count_nonzero(self.prior.scales))
        block = np.arange(n, dtype=np.int32)[:, None]
        strength = self.signals.T @ self.weights - self.prior.steepness * self.slopes.sum(axis=0)
        levels = [(block, strength)]
        for _ in range(1, min(orders, n)):
            levels.append(self._extended(*levels[-1]))
        mean = np.array([self.mean + self.scale * MEAN_VARIANCE * float(self.weights.sum())])
        values = [self.scale * self.prior.variances(block) * strength for block, strength in levels]
        sets, coefficients = merge(n, [np.zeros((1, 0), dtype=np.int32), *(block for block, _ in levels)], [mean, *values])
        found = FourierSurrogate(sets, coefficients, keep_probability=self.prior.keep_probability)
        return found.take(strong_terms(sets, coefficients, LEFT_OUT))

    def _extended(self, parents: Block, strength: Floats) -> tuple[Block, Floats]:
        """The strongest extensions S + {i} of the strongest parents S, with their covariances with the measurements relative to v(S + {i})."""
        relevances = self.prior.relevances
        kept = np.argsort(-np.abs(strength) * relevances[parents].prod(axis=1), kind="stable")[:PARENTS]

        def evidence(chosen: Block) -> Floats:
            every = (products(self.signals, chosen) * self.weights[:, None]).T @ self.signals
            return every - self.prior.steepness * (self._tangents(chosen).T @ self.sloped + products(self.sloped, chosen).T @ self.slopes)

        return strongest_extensions(parents[kept], evidence, len(self.signals), relevances)

    def _tangents(self, block: Block) -> Floats:
        """sum_{i in S} A_i φ_{S without i} for each mask with slopes and each set of a block, where A are the weights of its slopes."""
        columns = range(block.shape[1])
        parts = [self.slopes[:, block[:, column]] * products(self.sloped, np.delete(block, column, axis=1)) for column in columns]
        return cast("Floats", sum(parts))


def _solved(  # noqa: PLR0917
    prior: SlopePrior, signals: Floats, sloped_signals: Floats, values: Values, slopes: Floats, shares: tuple[Values, Values]
) -> tuple[Values, Floats]:
    """The weights of values `(m,)` and slopes `(m', n)` in the posterior mean, by conjugate gradients.

    The preconditioner treats values and the slopes of each component as unrelated. Then all components share an eigendecomposition.
    """
    count, n, known = len(values), slopes.shape[1], np.isfinite(slopes)
    among, between, across = Covariance(prior, signals, signals), Covariance(prior, sloped_signals, signals), Covariance(prior, signals, sloped_signals)
    tangent = Covariance(prior, sloped_signals, sloped_signals)
    noise, slope_noise = (prior.noise + LEAST_NOISE) * shares[0], shares[1][:, None] * prior.slope_noise

    def applied(weights: Floats) -> Floats:
        own, others = weights[:count], weights[count:].reshape(-1, n)
        bent = prior.curvature * sloped_signals * (sloped_signals * others).sum(axis=0)
        by_slopes = tangent.of_slopes(others, prior.doubt) + between.of_slopes_with_values(own) + slope_noise * others + bent
        return np.concatenate([among.of_values(own, None) + across.of_values(None, others) + noise * own, (known * by_slopes).ravel()])

    eigenvalues, vectors = np.linalg.eigh(tangent.whole)
    spectrum = prior.steepness**2 * (1 + prior.doubt) * prior.relevances * np.maximum(eigenvalues, 0.0)[:, None] + prior.slope_noise
    turned = vectors @ ((vectors.T @ sloped_signals) / spectrum)
    bends = prior.curvature / (1 + prior.curvature * (sloped_signals * turned).sum(axis=0))
    inverse = np.linalg.inv(among.values + np.diag(noise))

    def preconditioned(weights: Floats) -> Floats:
        others = vectors @ ((vectors.T @ weights[count:].reshape(-1, n)) / spectrum)
        others -= turned * ((sloped_signals * others).sum(axis=0) * bends)
        return np.concatenate([inverse @ weights[:count], (known * others).ravel()])

    found = conjugate_gradients(applied, preconditioned, np.concatenate([values, np.where(known, slopes, 0.0).ravel()]))
    return found[:count], found[count:].reshape(-1, n)


def conjugate_gradients(matrix: Callable[[Floats], Floats], preconditioner: Callable[[Floats], Floats], target: Floats) -> Floats:
    """Solve a symmetric positive definite system, given as products with vectors, to `TOLERANCE` relative to the target."""
    found = np.zeros_like(target)
    left, enough = target.copy(), TOLERANCE * float(np.linalg.norm(target))
    solved = preconditioner(left)
    direction, power = solved, float(left @ solved)
    for _ in range(MOST_ITERATIONS):
        if float(np.linalg.norm(left)) <= enough:
            break
        moved = matrix(direction)
        step = power / float(direction @ moved)
        found += step * direction
        left -= step * moved
        solved = preconditioner(left)
        before, power = power, float(left @ solved)
        direction = solved + (power / before) * direction
    return found


def sloped(slopes: Floats) -> NDArray[np.bool_]:
    """The rows of slopes `(m, n)` that are known in part at least, bool `(m,)`."""
    return np.asarray(np.isfinite(slopes).any(axis=1))


def credible(slopes: Floats, values: Values) -> Floats:
    """The slopes with NaN for those larger than the range of the values: no derivative of a multilinear function is. At most one in ten is left out.

    An ablated component can have an enormous slope, as where a normalisation divides by next to nothing.
    """
    known = slopes[np.isfinite(slopes)]
    most = max(float(np.ptp(values)), float(np.quantile(np.abs(known), 1 - MOST_LEFT_OUT)) if len(known) else 0.0)
    return np.where(np.abs(slopes) <= most, slopes, np.nan)
