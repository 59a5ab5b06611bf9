"""Masks, bool `(m, n)` with True = kept, their values, float64 `(m,)`, and their packed form."""

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


def check_masks(masks: object, n: int) -> Masks:
    """Return the masks as a bool array `(m, n)`.

    Integers 0 and 1 are accepted; floats are not, as soft masks are not supported. Raises ValueError for any other shape or type.
    """
    array = np.asarray(masks)
    if array.ndim != 2 or array.shape[1] != n:
        raise ValueError(f"masks have shape {array.shape}; expected (m, {n})")
    if array.dtype == np.bool_:
        return array
    if not np.issubdtype(array.dtype, np.integer) or not np.isin(array, (0, 1)).all():
        raise ValueError(f"masks have type {array.dtype}; expected bool, or integers 0 and 1")
    return array.astype(np.bool_)


def check_finite(masks: Masks, values: Values) -> Values:
    """Return the values if all are finite; otherwise raises EvaluationError, naming the components removed by the first mask with a non-finite value."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        removed = np.flatnonzero(~masks[bad[0]]).tolist()
        raise EvaluationError(f"{len(bad)} of {len(values)} masks have non-finite values; the first is {values[bad[0]]} with components {removed} removed")
    return values


def pack(masks: Masks) -> NDArray[np.uint8]:
    """Pack masks `(m, n)` into bytes `(m, ceil(n / 8))`, with component 0 in the highest bit of the first byte and padding bits 0."""
    return np.packbits(masks, axis=1)


def first_of_each(packed: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The row at which each distinct packed mask occurs first, `(u,)` in lexicographic order of the masks, and for each row the number of its mask among those, `(m,)`.

    Equals `np.unique` over the rows, but compares eight bytes at once, and later ones only where the earlier are equal.
    """
    words = _words(packed)
    order = np.argsort(words[:, 0], kind="stable")
    begins = _differ(words[:, 0], order)
    for column in words.T[1:]:
        among_equals = np.flatnonzero(~begins | ~np.append(begins[1:], True))
        if not len(among_equals):
            break
        rows, group = order[among_equals], np.cumsum(begins)[among_equals]
        order[among_equals] = rows[np.lexsort((column[rows], group))]
        begins[among_equals] |= _differ(column, order[among_equals])
    number = np.empty(len(order), dtype=np.intp)
    number[order] = np.cumsum(begins) - 1
    return order[begins], number


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Each row as numbers of eight bytes, `(m, at least 1)`, which compare as the bytes do."""
    m, width = packed.shape
    padded = np.zeros((m, 8 * max(-(-width // 8), 1)), dtype=np.uint8)
    padded[:, :width] = packed
    return np.asfortranarray(padded.view(">u8").astype(np.uint64))


def _differ(numbers: NDArray[np.uint64], order: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether each number differs from the one before it in this order. The first does."""
    return np.append(True, numbers[order[1:]] != numbers[order[:-1]])[: len(order)]


def unpack(packed: NDArray[np.uint8], n: int) -> Masks:
    """Unpack masks; the inverse of `pack`."""
    return np.unpackbits(packed, axis=1, count=n).astype(np.bool_)


def keys(masks: Masks) -> np.ndarray:
    """One comparable key per mask, `(m,)`."""
    packed = np.ascontiguousarray(pack(masks))
    return packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)


def lookup(masks: Masks, wanted: Masks) -> np.ndarray:
    """The first row of `masks` equal to each wanted mask, intp `(len(wanted),)`; -1 if there is none."""
    if not len(masks):
        return np.full(len(wanted), -1, dtype=np.intp)
    unique, first = np.unique(keys(masks), return_index=True)
    sought = keys(wanted)
    place = np.minimum(np.searchsorted(unique, sought), len(unique) - 1)
    return np.where(unique[place] == sought, first[place], -1)
