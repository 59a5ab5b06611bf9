"""Masks: which components are kept. Bool, `(m, n)`, True = kept; with their values, float64 `(m,)`, and their packed form."""

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


def check_masks(masks: object, n: int) -> Masks:
    """The masks as a bool array `(m, n)`; ValueError naming both shapes or the type otherwise.

    0/1 integers are taken; floats are not, as a soft mask has no meaning here.
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
    """The values, unless one is NaN or infinite: EvaluationError naming the first such mask by what it removes."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        removed = np.flatnonzero(~masks[bad[0]]).tolist()
        raise EvaluationError(f"{len(bad)} of {len(values)} masks gave no finite value; the first gave {values[bad[0]]} with components {removed} removed")
    return values


def pack(masks: Masks) -> NDArray[np.uint8]:
    """Masks `(m, n)` as bytes `(m, ceil(n / 8))`, component 0 in the highest bit of the first byte, spare bits 0."""
    return np.packbits(masks, axis=1)


def unpack(packed: NDArray[np.uint8], n: int) -> Masks:
    """The inverse of `pack`."""
    return np.unpackbits(packed, axis=1, count=n).astype(np.bool_)
