"""Shortened binary BCH codes: parity rows that distinguish all sets of up to t components, and batched decoders.

A code is independent of masks and bins. A word is the measured parity of a set, one bit per parity row. Wrong bits count as errors in addition to the
members of the set, so a set of order k is still found when t - k bits are wrong (the "joint" decoding of Kang et al. 2025, section 4). All arithmetic
in GF(2^m) uses logarithm tables on whole batches of words.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from raysp.spectral.sets import Floats

Bits = NDArray[np.uint8]
Elements = NDArray[np.int32]

#: Degree of the largest field tried: GF(2^20) is large enough for a million components.
MAX_DEGREE = 20
#: Words decoded per batch, and (word, position) pairs per batch of the root search; both bound memory.
WORDS, SEARCHED = 1 << 16, 1 << 21
#: Number of least reliable bits that a soft decoder may flip, and the largest and smallest number of flip patterns tried, most likely first.
UNSURE, PATTERNS, LEAST_PATTERNS = 16, 2048, 128
#: Upper bound on words times flip patterns in one soft decoding.
EFFORT = 1 << 21


@dataclass(frozen=True, eq=False)
class Code:
    """The t-error-correcting BCH code of length 2^degree - 1, shortened to `n` message positions.

    `polynomial` is the primitive polynomial that defines the field, as bits from low to high degree. Position e of a code word corresponds to the field
    element α^e: the parity bits come first, and component i is at position `parity_bits` + i.
    """

    n: int
    t: int
    degree: int
    polynomial: int

    @property
    def parity_bits(self) -> int:
        """The number of parity bits."""
        return parity_length(self.n, self.t)

    @cached_property
    def generator(self) -> int:
        """The generator polynomial, its coefficients as bits from low to high degree."""
        product = 1
        for coset in _cosets(self.degree, self.t):
            product = _carryless(product, self._minimal(coset))
        return product

    @cached_property
    def parity(self) -> Bits:
        """The parity of each single component, uint8 `(n, parity_bits)`: x^(parity_bits + i) modulo the generator. Its columns are the query delays."""
        bits, generator = self.parity_bits, self.generator
        remainder, rows = generator ^ (1 << bits), np.zeros((self.n, bits), dtype=np.uint8)
        for row in rows:
            row[:] = [(remainder >> j) & 1 for j in range(bits)]
            remainder <<= 1
            if remainder >> bits & 1:
                remainder ^= generator
        return rows

    def syndromes(self, words: Bits) -> Elements:
        """Return the odd syndromes S_1, S_3, …, int32 `(m, t)`, of words of parity bits, uint8 `(m, parity_bits)`."""
        odd = words.astype(np.float32) @ self._syndrome_bits
        return (odd.astype(np.int64) & 1).reshape(len(words), self.t, self.degree).astype(np.int32) @ (np.int32(1) << np.arange(self.degree, dtype=np.int32))

    def decode(self, words: Bits) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Decode words of hard bits, uint8 `(m, parity_bits)`.

        Returns the set of each word, int32 `(m, t)`, in ascending order and padded with `n`, and whether the word could be decoded, bool `(m,)`.
        """
        return self.locate(self.syndromes(words))

    def decode_soft(self, values: Floats, patterns: int | None = None) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """Decode soft words by Chase decoding: signs of the values are the bits, magnitudes are their reliability.

        `values` is float64 `(m, 1 + parity_bits)`; the first column is the reference (the empty parity), whose sign is that of the coefficient. For each
        word, the `patterns` most likely ways to flip its least reliable bits are decoded (None: as many as `EFFORT` allows). Returns, for each set found,
        the index of its word, intp `(found,)`, and its members, int32 `(found, t)`, in the format of `decode`. A set found more than once for the same
        word is returned once.
        """
        count = patterns or int(np.clip(EFFORT // max(len(values), 1), LEAST_PATTERNS, PATTERNS))
        choices = flips(min(UNSURE, values.shape[1]), count)
        step = max(WORDS // len(choices), 1)
        found = [self._chase(values[start : start + step], choices, start) for start in range(0, len(values), step)]
        together = np.concatenate([*found, np.zeros((0, self.t + 1), dtype=np.int32)])
        return together[:, 0].astype(np.intp), together[:, 1:]

    def locate(self, syndromes: Elements) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Find the sets with the given odd syndromes, int32 `(m, t)`; returns the same as `decode`.

        Wrong parity bits count towards t but are not members of the set.
        """
        members = np.full((len(syndromes), self.t), self.n, dtype=np.int32)
        valid = np.zeros(len(syndromes), dtype=np.bool_)
        for start in range(0, len(syndromes), WORDS):
            part = slice(start, start + WORDS)
            locators, lengths = self._berlekamp_massey(syndromes[part])
            valid[part] = lengths == 0
            for length in range(1, self.t + 1):
                rows = np.flatnonzero((lengths == length) & (locators[:, min(length, self.t)] != 0))
                rows = rows[self._splits(locators[rows, 1 : length + 1])]
                kept, positions = self._roots(locators[rows, 1 : length + 1])
                valid[start + rows[kept]] = True
                members[start + rows[kept], :length] = np.where(positions < self.parity_bits, self.n, positions - self.parity_bits)
        members.sort(axis=1)
        return members, valid

    # ---- the field

    @cached_property
    def _tables(self) -> tuple[Elements, Elements]:
        """Tables of exponentials and logarithms. The logarithm of 0 is so large that any sum with it indexes an entry of the exponentials that is 0."""
        order = (1 << self.degree) - 1
        exponentials, logarithms = np.zeros(4 * order + 1, dtype=np.int32), np.full(order + 1, 2 * order, dtype=np.int32)
        element = 1
        for power in range(order):
            exponentials[power] = exponentials[power + order] = element
            logarithms[element] = power
            element <<= 1
            if element >> self.degree:
                element ^= self.polynomial
        return exponentials, logarithms

    def _times(self, left: Elements, right: Elements) -> Elements:
        exponentials, logarithms = self._tables
        return exponentials[logarithms[left] + logarithms[right]]

    def _over(self, left: Elements, right: Elements) -> Elements:
        """Divide elementwise; the divisor must be nonzero."""
        exponentials, logarithms = self._tables
        return exponentials[logarithms[left] + (len(logarithms) - 1 - logarithms[right])]

    def _minimal(self, coset: tuple[int, ...]) -> int:
        """The minimal polynomial of α^coset[0] over GF(2), as bits."""
        product = np.array([1], dtype=np.int32)
        for power in coset:
            scaled = self._times(product, self._tables[0][np.full(len(product), power)])
            product = np.append(scaled, np.int32(0)) ^ np.insert(product, 0, np.int32(0))
        return sum(int(bit) << place for place, bit in enumerate(product))

    @cached_property
    def _syndrome_bits(self) -> NDArray[np.float32]:
        """The bits of α^(position · odd power) for every parity position, float32 `(parity_bits, t · degree)`."""
        order = (1 << self.degree) - 1
        powers = np.arange(self.parity_bits)[:, None] * (2 * np.arange(self.t) + 1) % order
        bits = self._tables[0][powers][:, :, None] >> np.arange(self.degree) & 1
        return bits.reshape(self.parity_bits, -1).astype(np.float32)

    # ---- decoding

    def _chase(self, values: Floats, choices: NDArray[np.bool_], offset: int) -> NDArray[np.int32]:
        """Decode one batch of `decode_soft`; returns distinct rows (word, members…), int32."""
        words = ((values[:, 1:] < 0) ^ (values[:, :1] < 0)).astype(np.uint8)
        every = self.syndromes(np.concatenate([np.ones((1, self.parity_bits)), np.eye(self.parity_bits)]).astype(np.uint8))
        unsure = np.argsort(np.abs(values), axis=1, kind="stable")[:, : choices.shape[1]]
        syndromes = np.repeat(self.syndromes(words)[:, None, :], len(choices), axis=1)
        for rank in range(choices.shape[1]):  # a wrong reference flips every bit, so its row of `every` is the syndrome of all ones
            syndromes[:, choices[:, rank]] ^= every[unsure[:, rank]][:, None, :]
        members, valid = self.locate(syndromes.reshape(-1, self.t))
        rows = np.flatnonzero(valid)
        numbered = np.concatenate([(rows // len(choices) + offset).astype(np.int32)[:, None], members[rows]], axis=1)
        return np.unique(numbered, axis=0)

    def _berlekamp_massey(self, odd: Elements) -> tuple[Elements, Elements]:
        """Return error locators, int32 `(m, t + 1)` from low to high degree with constant term 1, and their lengths `(m,)`, -1 above t.

        t steps suffice: for a binary code, every second step of the algorithm leaves the locator unchanged.
        """
        count, t = odd.shape
        syndromes = np.zeros((count, 2 * t + 1), dtype=np.int32)
        syndromes[:, 1::2] = odd
        for power in range(1, t + 1):
            syndromes[:, 2 * power] = self._times(syndromes[:, power], syndromes[:, power])
        locator, shifted = np.zeros((count, t + 1), dtype=np.int32), np.zeros((count, t + 1), dtype=np.int32)
        locator[:, 0], shifted[:, 1] = 1, 1
        length = np.zeros(count, dtype=np.int32)
        for step in range(t):
            terms = min(2 * step, t) + 1
            discrepancy = np.bitwise_xor.reduce(self._times(locator[:, :terms], syndromes[:, 2 * step + 1 :: -1][:, :terms]), axis=1)
            longer = (discrepancy != 0) & (length <= step)
            base = shifted.copy()
            base[longer] = self._over(locator[longer], discrepancy[longer, None])
            locator = locator ^ self._times(discrepancy[:, None], shifted)
            shifted[:, 2:], shifted[:, :2] = base[:, :-2], 0
            length = np.where(longer, 2 * step + 1 - length, length)
        return locator, np.where(length <= t, length, -1)

    def _splits(self, lower: Elements) -> NDArray[np.bool_]:
        """Whether x^L + lower[0] x^(L-1) + … + lower[L-1] has L distinct roots in the field, bool `(m,)`.

        It does if and only if x^(2^degree) ≡ x modulo the polynomial. Only one in L! random polynomials passes, so the root search can skip the rest.
        """
        count, length = lower.shape
        if length == 1 or not count:
            return np.ones(count, dtype=np.bool_)
        tail = lower[:, ::-1]  # low to high
        reduced = [tail]  # x^(L + i) modulo the polynomial
        for _ in range(length - 2):
            last = reduced[-1]
            reduced.append(np.concatenate([np.zeros((count, 1), dtype=np.int32), last[:, :-1]], axis=1) ^ self._times(last[:, -1:], tail))
        power = np.zeros((count, length), dtype=np.int32)
        power[:, 1] = 1
        for _ in range(self.degree):
            squares = self._times(power, power)
            power = np.zeros_like(power)
            for i in range(length):
                if 2 * i < length:
                    power[:, 2 * i] ^= squares[:, i]
                else:
                    power ^= self._times(squares[:, i : i + 1], reduced[2 * i - length])
        power[:, 1] ^= 1
        return ~np.any(power, axis=1)

    def _roots(self, lower: Elements) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """Find the polynomials (given as in `_splits`) whose roots all lie at positions of the shortened code, by Chien search.

        Returns their row numbers, intp `(kept,)`, and the positions, int32 `(kept, L)`.
        """
        exponentials, logarithms = self._tables
        length, order = lower.shape[1], len(logarithms) - 1
        points = np.arange(self.parity_bits + self.n)
        step = max(SEARCHED // len(points), 1)
        kept, found = [np.zeros(0, dtype=np.intp)], [np.zeros((0, length), dtype=np.int32)]
        for start in range(0, len(lower), step):
            part = logarithms[lower[start : start + step]]
            value = np.broadcast_to(exponentials[points * length % order], (len(part), len(points))).copy()
            for j in range(length):
                value ^= exponentials[part[:, j : j + 1] + (points * (length - 1 - j) % order)]
            zero = value == 0
            full = np.flatnonzero(zero.sum(axis=1) == length)
            kept.append(start + full)
            found.append(np.nonzero(zero[full])[1].reshape(len(full), length).astype(np.int32))
        return np.concatenate(kept), np.concatenate(found)


@lru_cache(maxsize=32)
def bch(n: int, t: int) -> Code:
    """Return the t-error-correcting code with the fewest parity bits for n components.

    The primitive polynomial is the default of `galois`. Raises ValueError if no field up to GF(2^20) is large enough.
    """
    import galois

    degree = _degree(n, t)
    primitive = galois.primitive_poly(2, degree)
    return Code(n, t, degree, int(primitive))


@lru_cache(maxsize=4096)
def parity_length(n: int, t: int) -> int:
    """The number of parity bits of `bch(n, t)`, without constructing the code."""
    return _redundancy(_degree(n, t), t)


@lru_cache(maxsize=8)
def flips(unsure: int, count: int) -> NDArray[np.bool_]:
    """The `count` most likely patterns of wrong bits among the `unsure` least reliable ones, bool `(count, unsure)`.

    Patterns are ordered by the sum of the ranks of their bits, starting with the empty pattern.
    """
    choices = np.array(list(itertools.product([False, True], repeat=unsure)), dtype=np.bool_)
    ranks = choices @ np.arange(1, unsure + 1)
    return choices[np.lexsort((choices.sum(axis=1), ranks))[:count]]


def _degree(n: int, t: int) -> int:
    """The degree of the smallest field in which a t-error-correcting code has at least n message positions."""
    for degree in range(2, MAX_DEGREE + 1):
        if 2 * t < (1 << degree) - 1 and (1 << degree) - 1 - _redundancy(degree, t) >= n:
            return degree
    raise ValueError(f"n, t: no BCH code up to GF(2^{MAX_DEGREE}) is long enough (n = {n}, t = {t}); lower n or t")


def _redundancy(degree: int, t: int) -> int:
    return sum(len(coset) for coset in _cosets(degree, t))


@lru_cache(maxsize=256)
def _cosets(degree: int, t: int) -> tuple[tuple[int, ...], ...]:
    """The distinct cyclotomic cosets of 1, 3, …, 2t - 1 modulo 2^degree - 1."""
    order = (1 << degree) - 1
    cosets: dict[int, tuple[int, ...]] = {}
    for power in range(1, 2 * t, 2):
        coset = [power % order]
        while (following := coset[-1] * 2 % order) != coset[0]:
            coset.append(following)
        cosets.setdefault(min(coset), tuple(coset))
    return tuple(cosets.values())


def _carryless(left: int, right: int) -> int:
    """Multiply two polynomials over GF(2), given as bits."""
    product = 0
    while right:
        if right & 1:
            product ^= left
        left, right = left << 1, right >> 1
    return product
