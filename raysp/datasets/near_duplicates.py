"""Near-duplicate texts by the Jaccard similarity of their 5-character shingles, with MinHash banding if there are too many pairs to compare.

Shingles are hashes of windows over code points, so that a hundred thousand texts take seconds. Broder 1997 (resemblance); Leskovec et al., Mining of Massive
Datasets, section 3.4 (banding).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

#: Characters in a shingle.
WIDTH = 5
#: Similarity from which two texts are near-duplicates.
SIMILARITY = 0.8
#: Number of distinct texts up to which every pair is compared.
EXACT = 1500
#: Hashes in a band, and bands: two texts of similarity 0.8 share a band with probability 1 - (1 - 0.8⁴)²⁰ > 0.9999.
ROWS, BANDS = 4, 20
#: Size of a bucket up to which all its pairs are compared; in larger ones each text is compared with a few others.
BUCKET, NEIGHBOURS = 40, 20
#: Pairs compared at once.
CHUNK = 20_000
#: Texts cut into shingles at once; fewer than 2^12.
SHINGLED = 4000
#: Shingles hashed at once.
CACHED = 1 << 17


def near_duplicates(texts: Sequence[str], seed: int = 0) -> Integers:
    """The group of each text, int64 `(texts,)`, numbered in order of appearance. A text without near-duplicates is a group of its own.

    Groups are the connected components of the graph of near-duplicate pairs. Case and white space are ignored.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    distinct: dict[str, int] = {}
    of = np.array([distinct.setdefault(" ".join(text.lower().split()), len(distinct)) for text in texts], np.int64)
    shingles, offsets = _shingles(list(distinct))
    first, second = _candidates(shingles, offsets, seed)
    alike = _similar(shingles, offsets, first, second)
    count = len(distinct)
    edges = coo_matrix((np.ones(int(alike.sum()), np.bool_), (first[alike], second[alike])), shape=(count, count))
    _, group = connected_components(edges, directed=False)
    return renumbered(np.asarray(group, np.int64)[of])


def renumbered(of: Integers) -> Integers:
    """The same groups, numbered in order of appearance."""
    _, first, inverse = np.unique(of, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def _shingles(texts: Sequence[str]) -> tuple[Hashes, Integers]:
    """The distinct shingles of all texts in one array, uint64, and the offset of each text, int64 `(texts + 1,)`. A short text is one shingle."""
    found = [_some_shingles(texts[start : start + SHINGLED]) for start in range(0, len(texts), SHINGLED)]
    counts = np.concatenate([counts for _, counts in found])
    return np.concatenate([hashes for hashes, _ in found]), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _some_shingles(texts: Sequence[str]) -> tuple[Hashes, Integers]:
    """The distinct shingles of at most `SHINGLED` texts, and how many each has."""
    padded = [text.ljust(WIDTH, "\0") for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded], np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths - WIDTH + 1)
    starts = np.arange(len(owner)) + (WIDTH - 1) * owner
    hashes = np.zeros(len(starts), np.uint64)
    for i in range(WIDTH):
        hashes = _mixed(hashes * np.uint64(0x9E3779B97F4A7C15) + points[starts + i])
    # The text's number above 52 bits of the hash: one plain sort for all of them.
    keys = np.sort((owner.astype(np.uint64) << np.uint64(52)) | (hashes >> np.uint64(12)))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return keys & np.uint64((1 << 52) - 1), np.bincount((keys >> np.uint64(52)).astype(np.int64), minlength=len(texts))


def _mixed(hashes: Hashes) -> Hashes:
    hashes = hashes ^ (hashes >> np.uint64(31))
    return hashes * np.uint64(0xBF58476D1CE4E5B9)


def _candidates(shingles: Hashes, offsets: Integers, seed: int) -> tuple[Integers, Integers]:
    """Pairs of texts that may be near-duplicates; the first has the lower number."""
    count = len(offsets) - 1
    if count <= EXACT:
        first, second = np.triu_indices(count, 1)
        return first.astype(np.int64), second.astype(np.int64)
    pairs = np.unique(np.concatenate([_within(band) for band in _bands(shingles, offsets, seed)]), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _bands(shingles: Hashes, offsets: Integers, seed: int) -> Hashes:
    """A hash of the minimal shingles of each text under random orders, uint64 `(BANDS, texts)`; equal for two texts with probability similarity^ROWS."""
    orders = np.random.default_rng([seed, 3]).integers(1 << 62, size=(BANDS, ROWS, 2), dtype=np.uint64)
    found = np.zeros((BANDS, len(offsets) - 1), np.uint64)
    # As many texts at once as fit into the processor's caches.
    starts = np.unique(np.searchsorted(offsets, np.arange(0, offsets[-1], CACHED), side="right") - 1).tolist()
    for start, stop in itertools.pairwise([*starts, len(offsets) - 1]):
        mine, begins = shingles[offsets[start] : offsets[stop]], offsets[start:stop] - offsets[start]
        for band in range(BANDS):
            for multiplier, shift in orders[band]:
                least = np.minimum.reduceat(_mixed(mine * (multiplier | np.uint64(1)) + shift), begins)
                found[band, start:stop] = _mixed(found[band, start:stop] * np.uint64(0x9E3779B97F4A7C15) + least)
    return found


def _within(band: Hashes) -> Integers:
    """Pairs of texts with the same hash of a band, int64 `(pairs, 2)`."""
    order = np.argsort(band, kind="stable")
    _, starts, sizes = np.unique(band[order], return_index=True, return_counts=True)
    size_of, place = np.repeat(sizes, sizes), np.arange(len(order)) - np.repeat(starts, sizes)
    found: list[Any] = []
    for step in range(1, min(BUCKET, int(sizes.max()))):
        here = np.flatnonzero((place + step < size_of) & ((size_of <= BUCKET) | (step <= NEIGHBOURS)))
        found.append(np.stack([order[here], order[here + step]], axis=1))
    # In a large bucket every text is also compared with the first one, which is usually the original.
    far = np.flatnonzero((size_of > BUCKET) & (place > NEIGHBOURS))
    found.append(np.stack([order[far - place[far]], order[far]], axis=1))
    return np.concatenate(found).astype(np.int64)


def _similar(shingles: Hashes, offsets: Integers, first: Integers, second: Integers) -> NDArray[np.bool_]:
    """Which of these pairs have a Jaccard similarity of at least `SIMILARITY`."""
    from scipy.sparse import csr_matrix

    sizes = np.diff(offsets)
    # Sets of very different sizes cannot be that similar.
    possible = np.minimum(sizes[first], sizes[second]) >= SIMILARITY * np.maximum(sizes[first], sizes[second])
    found = np.zeros(len(first), np.bool_)
    kept = np.flatnonzero(possible)
    if not len(kept):
        return found
    known, column = np.unique(shingles, return_inverse=True)
    sets: Any = csr_matrix((np.ones(len(column), np.int32), column.astype(np.int64), offsets), shape=(len(sizes), len(known)))
    for start in range(0, len(kept), CHUNK):
        some = kept[start : start + CHUNK]
        shared = np.asarray(sets[first[some]].multiply(sets[second[some]]).sum(axis=1)).ravel()
        found[some] = shared >= SIMILARITY * (sizes[first[some]] + sizes[second[some]] - shared) - 1e-9
    return found
