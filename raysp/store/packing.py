"""Convert masks between numpy (bool `(m, n)`) and Arrow (packed binary columns)."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysp.masks import Masks, pack, unpack

Table = Any
"""A pyarrow.Table; pyarrow is not typed."""


def to_binary(masks: Masks) -> Any:
    """Pack masks (bool, `(m, n)`) into an Arrow fixed-size binary array of length `m`, without a copy per mask."""
    return packed_to_binary(np.ascontiguousarray(pack(masks)))


def packed_to_binary(packed: NDArray[np.uint8]) -> Any:
    """Wrap packed masks (contiguous, `(m, ceil(n / 8))`) as an Arrow fixed-size binary array of length `m`, without a copy."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(max(packed.shape[1], 1)), len(packed), [None, pa.py_buffer(packed)])


def from_binary(column: Any, n: int) -> Masks:
    """Unpack an Arrow (chunked) array of packed masks, fixed-size or not, into bool `(m, n)`: the inverse of `to_binary`."""
    width = (n + 7) // 8
    array = column.cast(pa.binary(width))
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    packed = [np.frombuffer(chunk.buffers()[1], dtype=np.uint8, count=len(chunk) * width, offset=chunk.offset * width) for chunk in chunks if len(chunk)]
    flat: NDArray[np.uint8] = np.concatenate(packed) if packed else np.zeros(0, dtype=np.uint8)
    return unpack(flat.reshape(-1, width), n)


def to_lists(masks: Masks) -> Any:
    """Convert masks (bool, `(m, n)`) into an Arrow fixed-size list<bool> array."""
    return pa.FixedSizeListArray.from_arrays(pa.array(masks.reshape(-1)), masks.shape[1])
