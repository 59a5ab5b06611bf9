"""Batches of token sequences with the scores to be read out, as flat arrays. Independent of models and prompts.

A symbol is a token id, or one of two further ids: `vocabulary` stands for the zero vector, `vocabulary + 1` for the mean embedding.
A token that is hidden from attention is simply absent while the others keep their positions, as nothing can tell the two apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inputs:
    """`m` sequences with `t` symbols in total, and `r` readouts.

    `symbols` and `positions` are int64 `(t,)`; sequence `i` is `offsets[i]:offsets[i + 1]`. Positions ascend within a sequence.
    Readout `j` is of token `read_token[j]` after symbol `read_index[j]` of sequence `read_sequence[j]` (for a classifier: class
    `read_token[j]`, wherever it pools).
    """

    symbols: Integers
    positions: Integers
    offsets: Integers
    read_sequence: Integers
    read_index: Integers
    read_token: Integers

    @property
    def m(self) -> int:
        """The number of sequences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Integers:
        """Number of symbols in each sequence, int64 `(m,)`."""
        return np.diff(self.offsets)

    def chosen(self, sequences: Integers) -> "Inputs":
        """Only these sequences, in this order, with their readouts in the same order."""
        lengths = self.lengths[sequences]
        offsets = ragged_offsets(lengths)
        take = ragged_ranges(self.offsets[sequences], lengths)
        reads = [np.flatnonzero(self.read_sequence == sequence) for sequence in sequences]
        read = np.concatenate([np.empty(0, np.int64), *reads])
        renamed = np.repeat(np.arange(len(sequences)), [len(r) for r in reads])
        return Inputs(self.symbols[take], self.positions[take], offsets, renamed, self.read_index[read], self.read_token[read])


@dataclass(frozen=True, slots=True)
class Scores:
    """The logit and, if requested, the log-probability of every readout (float64 `(r,)`), with the number of tokens computed."""

    logits: Floats
    logprobs: Floats
    tokens: int


def ragged_offsets(lengths: Integers) -> Integers:
    """The offsets of arrays of these lengths in their concatenation, and its length at the end: int64 `(m + 1,)`."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def ragged_ranges(starts: Integers, lengths: Integers) -> Integers:
    """The concatenation of `arange(start, start + length)` over all pairs."""
    offsets = ragged_offsets(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def gather(sequences: Sequence[Integers], positions: Sequence[Integers], reads: Sequence[tuple[Integers, Integers]]) -> Inputs:
    """Inputs from separate arrays: for each sequence its symbols, its positions, and which tokens to read where."""
    offsets = ragged_offsets(np.array([len(s) for s in sequences], np.int64))
    owner = np.repeat(np.arange(len(sequences)), [len(tokens) for _, tokens in reads])
    none = np.empty(0, np.int64)
    return Inputs(
        np.concatenate([none, *sequences]),
        np.concatenate([none, *positions]),
        offsets,
        owner,
        np.concatenate([none, *(index for index, _ in reads)]),
        np.concatenate([none, *(tokens for _, tokens in reads)]),
    )
