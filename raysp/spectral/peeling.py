"""Peeling: coefficients that are alone in a bin are decoded and subtracted from every block, which exposes others (Kang et al. 2025, algorithm 1).

Works in the transform domain. Within a block the parities of sets in different bins are orthogonal, and those of sets in the same bin differ only in
sign, so a regression on all samples needs one matrix entry per block and term. This module is independent of the masks and of how the terms are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Values
from raysp.spectral.queries import MATRICES, Design
from raysp.spectral.sets import Block, Floats, Sets, merge, positions, union
from raysp.spectral.walsh import walsh_hadamard

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

Decoder = Literal["soft", "hard"]

#: Maximum number of decoding rounds.
ROUNDS = 60
#: Standard errors by which the other matrices must confirm a decoded coefficient, and below which a fitted coefficient is dropped.
WITNESS, DROPPED = 4.0, 3.0
#: Blocks of other matrices needed to confirm a decoded set; with fewer, only hard decoding is used and its sets are accepted without confirmation.
WITNESSES = 8
#: Standard deviations of a bin's energy above the noise level at which the bin is decoded, and at which it counts as occupied.
ACTIVE, LOADED = 2.0, 4.0
#: Share of bins assumed to hold only noise when the noise level is estimated.
QUIET = 0.25
#: Relative magnitude of rounding errors, in energy.
ROUNDING = 1e-22


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The transforms of the measured blocks: `values` float64 `(MATRICES, delays, 2^b)`, zero where `told` (bool `(MATRICES, delays)`) is False."""

    design: Design
    values: Floats
    told: NDArray[np.bool_]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """The matrices whose blocks have all been measured, bool `(MATRICES,)`; their bins can be decoded."""
        return np.asarray(self.told.all(axis=1))

    @property
    def weight(self) -> float:
        """The number of samples that one row of the transform represents."""
        return float(self.values.shape[2])

    def rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The matrix and delay indices of the measured blocks."""
        matrices, delays = np.nonzero(self.told)
        return matrices, delays

    def targets(self) -> Values:
        """The transforms as targets of a regression on all samples, float64 `(measured blocks · 2^b,)`, with the same sum of squares as the samples."""
        return (self.values[self.told] * np.sqrt(self.weight)).ravel()

    def columns(self, sets: Sets) -> csc_matrix:
        """The regression columns of the sets, sparse `(measured blocks · 2^b, len(sets))`, with one entry per block."""
        from scipy.sparse import csc_matrix

        matrices, delays = self.rows()
        width = self.values.shape[2]
        rows = np.arange(len(matrices)) * width + self.design.bins(sets)[:, matrices]
        entries = self.design.signs(sets)[:, delays] * np.sqrt(self.weight)
        pointers = np.arange(len(sets) + 1) * len(matrices)
        return csc_matrix((entries.ravel(), rows.ravel(), pointers), shape=(len(matrices) * width, len(sets)))

    def less(self, sets: Sets, coefficients: Floats) -> Spectrum:
        """Subtract the given terms from all blocks."""
        values = self.values.copy()
        taken = self.columns(sets) @ coefficients / np.sqrt(self.weight)
        values[self.told] -= taken.reshape(-1, values.shape[2])
        return Spectrum(self.design, values, self.told)


@dataclass(frozen=True)
class Peeled:
    """The result of peeling.

    Terms with their coefficients `(len(sets),)`, the noise per sample (standard deviation), the number of rounds, the number of bins that still hold more
    than noise, and the number of terms after each round that found any.
    """

    sets: Sets
    coefficients: Floats
    noise: float
    rounds: int
    unresolved: int
    history: list[int] = field(default_factory=list)


def transform(design: Design, values: Values) -> Spectrum:
    """Transform all blocks whose masks are among the first m distinct masks of the design; `values` `(m,)` are the values of those masks."""
    told = design.places.max(axis=1) < len(values)
    table = np.zeros((design.blocks, 1 << design.b))
    if told.any():
        table[told] = walsh_hadamard(values[design.places[told]].T).T / (1 << design.b)
    return Spectrum(design, table.reshape(MATRICES, design.delays, -1), told.reshape(MATRICES, -1))


def peel(spectrum: Spectrum, decoder: Decoder = "soft") -> Peeled:
    """Repeatedly decode, verify and subtract terms until nothing new is found.

    Hard decoding comes first in each round; soft decoding is used only when hard decoding finds nothing new, and a bin that yields nothing is not decoded
    softly again until a term has been subtracted from it. A decoded set is accepted if it maps to its own bin and the other matrices confirm it. After
    each round, all coefficients are re-estimated by least squares on all blocks.
    """
    sets, coefficients = Sets(spectrum.design.n, ()), np.zeros(0)
    rest, tried, refused = spectrum, np.zeros(_shape(spectrum), dtype=np.bool_), Sets(spectrum.design.n, ())
    soft, history, round_number = False, list[int](), 0
    floor = ROUNDING * float(np.max(spectrum.values**2, initial=0.0))
    while round_number < ROUNDS:
        round_number += 1
        level = max(noise_level(rest), floor)
        wanted = active(rest, level) & ~(tried & soft)
        tried |= wanted & soft
        fresh = _new(_candidates(rest, wanted, soft=soft), union(sets, refused))
        fresh = fresh.take(accepted(rest, fresh, level))
        if not len(fresh):
            if soft or decoder == "hard" or not witnessed(spectrum):
                break
            soft = True
            continue
        soft = False
        together = union(sets, fresh)
        sets, coefficients = _estimated(spectrum, together)
        refused = union(refused, _new(together, sets))
        rest = spectrum.less(sets, coefficients)
        tried &= ~_touched(rest, fresh)
        history.append(len(sets))
    level = max(noise_level(rest), floor)
    unresolved = int(active(rest, level, LOADED).sum())
    noise = float(np.sqrt(level * spectrum.weight)) if level > floor else 0.0
    return Peeled(sets, coefficients, noise, round_number, unresolved, history)


def noise_level(rest: Spectrum) -> float:
    """Estimate the variance of an empty bin from the lower quartile of the bin energies of complete matrices; 0 if no matrix is complete."""
    from scipy.special import gammaincinv

    if not rest.complete.any():
        return 0.0
    half = rest.design.delays / 2
    return float(np.quantile(_energy(rest)[rest.complete], QUIET) * half / gammaincinv(half, QUIET))


def active(rest: Spectrum, level: float, deviations: float = ACTIVE) -> NDArray[np.bool_]:
    """The bins of complete matrices that exceed the noise level by the given number of standard deviations, bool `(MATRICES, 2^b)`."""
    return (_energy(rest) > level * (1 + deviations * np.sqrt(2 / rest.design.delays))) & rest.complete[:, None]


def witnessed(spectrum: Spectrum) -> bool:
    """Whether a set decoded under one matrix can be confirmed by the others."""
    blocks = spectrum.told.sum(axis=1)
    return bool(np.any(spectrum.complete & (blocks.sum() - blocks >= WITNESSES)))


def accepted(rest: Spectrum, sets: Sets, level: float) -> NDArray[np.bool_]:
    """The sets confirmed by the matrices other than the one with the strongest evidence for them, bool `(len(sets),)`.

    Each matrix gives an estimate whose variance comprises the noise and everything else in the bin. All sets are accepted if too few blocks are measured
    to confirm any.
    """
    bins, signs, told = rest.design.bins(sets), rest.design.signs(sets), rest.told.sum(axis=1)
    score, weight = np.zeros((len(sets), MATRICES)), np.zeros((len(sets), MATRICES))
    for matrix in np.flatnonzero(told):
        found = rest.values[matrix][:, bins[:, matrix]].T
        mean = np.einsum("sd,sd->s", found, signs) / told[matrix]
        variance = np.maximum(np.einsum("sd,sd->s", found, found) / told[matrix] - mean**2, max(level, np.finfo(float).tiny))
        weight[:, matrix] = told[matrix] / variance
        score[:, matrix] = mean * weight[:, matrix]
    best = np.argmax(np.where(rest.complete, np.abs(score) / np.sqrt(np.maximum(weight, np.finfo(float).tiny)), -1.0), axis=1)
    every = np.arange(len(sets))
    sign = np.sign(score[every, best])
    score[every, best] = weight[every, best] = 0.0
    if not witnessed(rest):
        return np.ones(len(sets), dtype=np.bool_)
    total = weight.sum(axis=1)
    return sign * score.sum(axis=1) > WITNESS * np.sqrt(total)


def least_squares(columns: csc_matrix, targets: Values) -> Floats:
    """Solve least squares with nearly orthogonal columns, by LSQR."""
    from scipy.sparse.linalg import lsqr

    solve: Any = lsqr
    return np.asarray(solve(columns, targets, atol=1e-14, btol=1e-14, iter_lim=200)[0], dtype=np.float64)


def _candidates(rest: Spectrum, wanted: NDArray[np.bool_], *, soft: bool) -> Sets:
    """Decode the wanted bins, keeping the sets that map to the bin in which they were found."""
    code, n = rest.design.code, rest.design.n
    matrices, bins = np.nonzero(wanted)
    words = rest.values[matrices, :, bins]
    if soft:
        rows, members = code.decode_soft(words)
    else:
        members, valid = code.decode(((words[:, 1:] < 0) ^ (words[:, :1] < 0)).astype(np.uint8))
        rows = np.flatnonzero(valid)
        members = members[rows]
    padded = np.concatenate([rest.design.rows, np.zeros((MATRICES, 1), dtype=np.int64)], axis=1)
    landed = np.bitwise_xor.reduce(padded[matrices[rows, None], members], axis=1)
    members = members[landed == bins[rows]]
    orders = (members < n).sum(axis=1)
    blocks: list[Block] = [members[orders == k, :k] for k in range(code.t + 1)]
    return merge(n, blocks, [np.zeros(len(block)) for block in blocks])[0]


def _estimated(spectrum: Spectrum, sets: Sets) -> tuple[Sets, Floats]:
    """Estimate the coefficients by least squares on all blocks, dropping the terms that are indistinguishable from noise."""
    columns, targets = spectrum.columns(sets), spectrum.targets()
    found = least_squares(columns, targets)
    residual = targets - columns @ found
    error = np.sqrt(float(residual @ residual) / max(len(targets) - len(sets), 1) / max(len(targets), 1))
    kept = np.abs(found) > DROPPED * error
    if kept.all():
        return sets, found
    return sets.take(kept), least_squares(columns[:, np.flatnonzero(kept)], targets)


def _new(sets: Sets, known: Sets) -> Sets:
    return sets.take(positions(known, sets) < 0) if len(sets) else sets


def _touched(rest: Spectrum, sets: Sets) -> NDArray[np.bool_]:
    """The bins of the given sets, bool `(MATRICES, 2^b)`."""
    touched = np.zeros(_shape(rest), dtype=np.bool_)
    for matrix, bins in enumerate(rest.design.bins(sets).T):
        touched[matrix, bins] = True
    return touched


def _energy(rest: Spectrum) -> Floats:
    """The mean square of each bin over the delays, float64 `(MATRICES, 2^b)`."""
    return np.mean(rest.values**2, axis=1)


def _shape(spectrum: Spectrum) -> tuple[int, int]:
    return spectrum.values.shape[0], spectrum.values.shape[2]
