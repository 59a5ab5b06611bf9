"""The prefix tree of a batch of sequences, as arrays. Independent of models.

Sequences share the nodes of their common beginning, so that a computation over nodes processes it once. With nodes numbered depth first, a subtree is a range and
the ancestor relation takes two comparisons.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from raysp.models.inputs import Inputs, Integers, ragged_ranges


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """`k` nodes in depth-first order below a root path of `root` symbols, which is not part of the tree.

    `symbols`, `positions` and `depth` are int64 `(k,)`; the subtree of node `i` is `i:end[i]`; `read_node` is the node of each readout.
    The ancestors of node `i` are the root path and the nodes `path(i)`.
    """

    root: int
    symbols: Integers
    positions: Integers
    depth: Integers
    end: Integers
    read_node: Integers

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.symbols)

    def path(self, node: int) -> Integers:
        """The proper ancestors of a node below the root path, from the top, int64. At `node == len(self)`: none."""
        if node >= len(self):
            return np.empty(0, np.int64)
        before = np.arange(node)
        return before[self.end[:node] > node]


def keys(inputs: Inputs) -> Integers:
    """A number for each pair of position and symbol, int64 `(t,)`."""
    return inputs.positions << 32 | inputs.symbols


def common_prefix(inputs: Inputs) -> Integers:
    """The keys of the beginning common to all sequences, ending before the first readout."""
    flat = keys(inputs)
    _, shared = _sorted_with_shared(flat, inputs.offsets)
    length = min([*shared[1:].tolist(), *inputs.lengths[:1].tolist(), *inputs.read_index.tolist()], default=0)
    return flat[:length]


def build_tree(inputs: Inputs, known: Integers | None = None) -> PrefixTree:
    """The prefix tree of all sequences, below the longest part of the `known` keys with which all of them begin."""
    flat, lengths = keys(inputs), inputs.lengths
    order, shared = _sorted_with_shared(flat, inputs.offsets)
    root = 0 if known is None else _shared_with(known, flat, inputs, shared)
    shared[0] = root
    shared = np.maximum(shared, root)
    new = lengths[order] - shared
    first = np.concatenate([[0], np.cumsum(new)]).astype(np.int64)
    take = ragged_ranges(inputs.offsets[order] + shared, new)
    depth = ragged_ranges(shared, new)
    end, node_at = _ends_and_reads(order, shared, first, lengths, inputs)
    return PrefixTree(root, inputs.symbols[take], inputs.positions[take], depth, end, node_at)


def _shared_with(known: Integers, flat: Integers, inputs: Inputs, shared: Integers) -> int:
    """The number of known keys with which all sequences begin, ending before the first readout."""
    limit = min([len(known), *inputs.lengths[:1].tolist(), *shared[1:].tolist(), *inputs.read_index.tolist()])
    differs = np.flatnonzero(flat[:limit] != known[:limit])
    return int(differs[0]) if len(differs) else limit


def _sorted_with_shared(flat: Integers, offsets: Integers) -> tuple[Integers, Integers]:
    """The lexicographic order of the sequences, and the number of symbols that each shares with its predecessor in that order."""
    # Big-endian bytes of numbers that are not negative sort as the numbers do, a prefix before its continuations.
    ordered = flat.astype(">i8")
    texts = [ordered[start:stop].tobytes() for start, stop in itertools.pairwise(offsets)]
    order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
    shared = np.zeros(len(order), np.int64)
    for i in range(1, len(order)):
        before, here = order[i - 1], order[i]
        length = min(offsets[before + 1] - offsets[before], offsets[here + 1] - offsets[here])
        same = flat[offsets[before] : offsets[before] + length] == flat[offsets[here] : offsets[here] + length]
        shared[i] = length if same.all() else int(same.argmin())
    return order, shared


def _ends_and_reads(order: Integers, shared: Integers, first: Integers, lengths: Integers, inputs: Inputs) -> tuple[Integers, Integers]:
    """The end of each node's subtree, and the node of each readout."""
    total, longest = int(first[-1]), int(lengths.max(initial=0))
    end = np.empty(total, np.int64)
    following = np.full(longest + 1, total, np.int64)  # by depth: the first node of the next sequence that leaves the path there
    for i in range(len(order) - 1, -1, -1):
        low, high = shared[i], lengths[order[i]]
        end[first[i] : first[i + 1]] = following[low:high]
        following[low:] = first[i]
    node_of = np.empty(len(inputs.read_index), np.int64)
    reads_by_sequence = np.argsort(inputs.read_sequence, kind="stable")
    bounds = np.searchsorted(inputs.read_sequence[reads_by_sequence], np.arange(inputs.m + 1))
    path = np.empty(longest, np.int64)  # by depth: the node of the current sequence
    for i, sequence in enumerate(order):
        path[shared[i] : lengths[sequence]] = np.arange(first[i], first[i + 1])
        mine = reads_by_sequence[bounds[sequence] : bounds[sequence + 1]]
        node_of[mine] = path[inputs.read_index[mine]]
    return end, node_of
