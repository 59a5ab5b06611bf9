"""The prefix tree against its definition, on sequences that share beginnings."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models.inputs import gather
from raysp.models.prefix_tree import build_tree, common_prefix, keys

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12)


def as_inputs(rows):
    arrays = [np.array(row, np.int64) for row in rows]
    reads = [(np.array([len(row) - 1]), np.array([0])) for row in arrays]
    return gather(arrays, [np.arange(len(row)) for row in arrays], reads)


@given(sequences)
@settings(deadline=None, max_examples=200)
def test_every_distinct_prefix_is_one_node(rows):
    tree = build_tree(as_inputs(rows))
    assert len(tree) == len({tuple(row[:k]) for row in rows for k in range(1, len(row) + 1)})


@given(sequences)
@settings(deadline=None, max_examples=200)
def test_the_ancestors_of_a_readout_spell_its_sequence(rows):
    tree = build_tree(as_inputs(rows))
    for row, node in zip(rows, tree.read_node, strict=True):
        path = [*tree.path(int(node)), node]
        assert tree.symbols[path].tolist() == row
        assert tree.depth[path].tolist() == list(range(len(row)))


@given(sequences, st.lists(st.integers(0, 2), max_size=5))
@settings(deadline=None, max_examples=200)
def test_a_known_root_is_left_out_as_far_as_all_sequences_share_it(rows, known):
    inputs = as_inputs(rows)
    root = np.array(known, np.int64) | np.arange(len(known)) << 32
    tree = build_tree(inputs, root)
    shared = len(common_prefix(inputs))
    agree = next((k for k in range(min(shared, len(known))) if known[k] != rows[0][k]), min(shared, len(known)))
    assert tree.root == agree
    assert len(tree) == len(build_tree(inputs)) - agree


def test_a_symbol_at_another_position_is_another_node():
    symbols, reads = np.array([1, 2]), (np.array([1]), np.array([0]))
    inputs = gather([symbols, symbols], [np.array([0, 1]), np.array([0, 2])], [reads, reads])
    assert len(build_tree(inputs)) == 3
    assert keys(inputs).tolist() == [1, 2 | 1 << 32, 1, 2 | 2 << 32]


def test_the_common_prefix_stops_before_what_is_read():
    assert len(common_prefix(as_inputs([[1, 2, 0], [1, 2, 0]]))) == 2
    assert len(common_prefix(as_inputs([[1, 2], [1, 2, 0]]))) == 1
