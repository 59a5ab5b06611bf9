"""Masks drawn by size: how many of each size, and which, in pairs of a mask and its complement.

Uniform masks hold about half of the components, and say little about the intact input or about the sizes to which Shapley values give most of their weight.
A design states how often each size is drawn; masks of one size are drawn without replacement, so each has a known probability of being measured.
"""

from __future__ import annotations

import itertools
from math import comb, lgamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values
from raysp.sampling.matching import distinct
from raysp.spectral.walsh import all_masks

Counts = NDArray[np.intp]

#: Masks of a size are drawn from a list of all of them up to this many; beyond, repeated draws are rejected.
LISTED = 200_000
#: More masks of one size than any design has.
MANY = 1e15
#: Maximum number of draws of masks of a size when new ones are rare, after which fewer are returned.
ATTEMPTS = 50


def binomial_shares(n: int, keep_probability: float) -> Values:
    """The share of masks that keep s components, for s = 0 .. n, if each is kept with `keep_probability`: float64 `(n + 1,)`."""
    sizes = np.arange(n + 1)
    return np.exp(log_numbers(n) + sizes * log(keep_probability) + (n - sizes) * log(1 - keep_probability))


def spread_shares(n: int) -> Values:
    """Shares of all sizes but the ends, in proportion to 1 / sqrt(s (n - s)), float64 `(n + 1,)`.

    This is the root of the weight that Shapley values give to a size, and so the allocation with the least variance if all sizes vary alike (Neyman).
    """
    return np.array([1 / sqrt(s * (n - s)) if 0 < s < n else 0.0 for s in range(n + 1)])


def allocated(n: int, count: int, shares: Values, known: Masks | None = None) -> Counts:
    """How many of `count` masks to draw of each size, intp `(n + 1,)`: in proportion to `shares` (`(n + 1,)`), but no more than there are beside those `known`.

    Sizes without a share are drawn only once all others are exhausted.
    """
    there = _numbers(n)
    if known is not None and len(known):
        there -= np.bincount(known.sum(axis=1), minlength=n + 1)
    count = int(min(count, there.sum()))
    shares = np.where(shares > 0, shares, shares.sum() * 1e-12 + 1e-300)
    low, high = 0.0, 1.0
    while np.minimum(there, high * shares).sum() < count:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if np.minimum(there, middle * shares).sum() >= count else (middle, high)
    wanted = np.minimum(there, high * shares)
    found = np.floor(wanted + 1e-9).astype(np.intp)
    # What is left goes to the largest remainders, smaller sizes first among equals.
    for size in np.argsort(-(wanted - found), kind="stable").tolist() * 2:
        if found.sum() >= count:
            break
        found[size] += found[size] < there[size]
    return found


def sized_masks(n: int, counts: Counts, rng: np.random.Generator, excluded: Masks | None = None) -> Masks:
    """Draw `counts[s]` distinct masks of every size s, none of them in `excluded`, bool `(m, n)`.

    As far as both sizes are wanted, a mask is drawn with its complement, which separates terms of even from terms of odd order. Fewer are returned of a size
    that has too few others.
    """
    parts = [np.zeros((0, n), dtype=np.bool_)]
    for size in range(n // 2 + 1):
        few, many = int(counts[size]), int(counts[n - size])
        if not few and not many:
            continue
        if 2 * size == n:
            # Each pair is drawn by its half that keeps the first component.
            half = _of_size(n - 1, size - 1, -(-few // 2), rng) if size else np.zeros((0, n - 1), dtype=np.bool_)
            kept = np.concatenate([np.ones((len(half), 1), dtype=np.bool_), half], axis=1)
            parts.append(np.stack([kept, ~kept], axis=1).reshape(-1, n)[:few])
        else:
            drawn = _of_size(n, size, max(few, many), rng)
            parts += [drawn[:few], ~drawn[:many]]
    found = np.concatenate(parts)
    if excluded is None or not len(excluded):
        return found
    fresh = distinct(found, excluded)
    return fresh if len(fresh) == len(found) else _completed(n, counts, fresh, rng, excluded)


def log_numbers(n: int) -> Values:
    """The logarithms of the numbers of masks of every size, float64 `(n + 1,)`."""
    factorials = np.array([lgamma(s + 1) for s in range(n + 1)])
    return factorials[n] - factorials - factorials[::-1]


def _numbers(n: int) -> Values:
    """The numbers of masks of every size, float64 `(n + 1,)`: exact as far as that matters, `MANY` where there are more."""
    found = np.full(n + 1, MANY)
    for size in np.flatnonzero(log_numbers(n) < log(MANY)).tolist():
        found[size] = comb(n, size)
    return np.minimum(found, MANY)


def _completed(n: int, counts: Counts, found: Masks, rng: np.random.Generator, excluded: Masks) -> Masks:
    """The masks found, and others in place of those that were excluded."""
    missing = counts - np.bincount(found.sum(axis=1), minlength=n + 1)
    known = np.concatenate([excluded, found])
    taken = np.bincount(distinct(known).sum(axis=1), minlength=n + 1)
    more = [found]
    for size in np.flatnonzero(missing > 0).tolist():
        drawn = _of_size(n, size, min(int(missing[size] + taken[size]), comb(n, size)), rng)
        more.append(distinct(drawn, known)[: missing[size]])
    return np.concatenate(more)


def _of_size(n: int, size: int, count: int, rng: np.random.Generator) -> Masks:
    """`count` distinct masks that keep `size` of n components, in random order."""
    there = comb(n, size)
    if there <= LISTED or count > there // 2:
        chosen = rng.choice(there, min(count, there), replace=False)
        return _listed(n, size)[chosen]
    found = np.zeros((0, n), dtype=np.bool_)
    for _ in range(ATTEMPTS):
        if len(found) >= count:
            break
        drawn = np.zeros((count, n), dtype=np.bool_)
        for row in drawn:
            row[rng.choice(n, size, replace=False, shuffle=False)] = True
        found = distinct(np.concatenate([found, drawn]))
    return found[:count]


def _listed(n: int, size: int) -> Masks:
    """All masks that keep `size` of n components."""
    if n <= 16:
        every = all_masks(n)
        return every[every.sum(axis=1) == size]
    small = min(size, n - size)
    members = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(n), small)), dtype=np.intp).reshape(comb(n, small), small)
    found = np.zeros((len(members), n), dtype=np.bool_)
    np.put_along_axis(found, members, values=True, axis=1)
    return found if small == size else ~found
