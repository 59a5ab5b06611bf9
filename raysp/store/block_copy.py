"""Copy a DuckDB file onto an older copy of it by writing only the blocks that differ.

A DuckDB file has three headers of 4 KiB, then blocks of one size, each beginning with a 64-bit checksum of its content (`storage/block.hpp`), so that equal
checksums at the same place mean equal blocks.
"""

import os

HEADERS = 3 * 4096
CHECKSUM = 8


def copy_blocks(source: int, target: int, block_size: int, first: int = 0, count: int | None = None) -> int:
    """Make `count` blocks (all by default) from number `first` of the open file `target` equal to those of `source`. Returns the number of bytes written.

    Nothing may write to `source` meanwhile. The headers, and the length, are those of `source` once all blocks have been copied.
    """
    size = os.fstat(source).st_size
    blocks = max(0, -(-(size - HEADERS) // block_size))
    written = 0
    for number in range(first, blocks if count is None else min(blocks, first + count)):
        at = HEADERS + number * block_size
        if os.pread(source, CHECKSUM, at) != os.pread(target, CHECKSUM, at):
            written += _write(target, os.pread(source, block_size, at), at)
    if count is None:
        written += _write(target, os.pread(source, min(HEADERS, size), 0), 0)
        os.ftruncate(target, size)
    return written


def block_count(source: int, block_size: int) -> int:
    """The number of blocks of an open file."""
    return max(0, -(-(os.fstat(source).st_size - HEADERS) // block_size))


def _write(target: int, content: bytes, at: int) -> int:
    done = 0
    while done < len(content):
        done += os.pwrite(target, content[done:], at + done)
    return done
