"""Scoring sequences in padded batches, one in each row: for encoders and classifiers, and as the reference for packed scoring.

A symbol stands in the column of its position; columns without a symbol are hidden from attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raysp.models.classes import has_independent_labels
from raysp.models.inputs import Inputs, Integers, Scores
from raysp.models.memory import is_out_of_memory, release
from raysp.models.packing import read

Padding = Literal["left", "right", "none"]


@dataclass(slots=True)
class PaddedScorer:
    """Scores inputs in batches sorted by length, with `rows * longest <= budget` tokens, halved when memory runs out.

    Padding `left` passes positions explicitly; `none` batches only sequences of equal length. With a budget of 0 every sequence is run alone and without
    padding, as the model's authors would run it: the reference.
    """

    model: Any
    device: torch.device
    embed: Callable[[Tensor], dict[str, Tensor]]
    budget: int
    padding: Padding
    filler: int
    vocabulary: int
    takes_positions: bool
    keeps_logits: bool
    classifies: bool

    def score(self, inputs: Inputs, *, logprobs: bool = True) -> Scores:
        """Logits and log-probabilities at the readouts; `tokens` includes padding, which costs the same.

        Raises torch.OutOfMemoryError if a single sequence does not fit.
        """
        result = np.full((2, len(inputs.read_token)), np.nan)
        spans = _spans(inputs)
        order = np.argsort(spans, kind="stable")[::-1]  # longest first: if memory runs out, it does so at once
        # Classifiers find the last token by its id; where they are given vectors they take the last column.
        even = self.padding == "none" or (self.classifies and bool((inputs.symbols >= self.vocabulary).any()))
        at = tokens = 0
        while at < inputs.m:
            rows = self._rows(spans[order[at:]], even)
            chosen = order[at : at + rows]
            try:
                reads, values = self._run(inputs, chosen, logprobs)
            except RuntimeError as error:
                if not is_out_of_memory(error) or rows == 1:
                    raise
                self.budget = int(spans[chosen[0]]) * rows // 2
                release(self.device)
                continue
            result[:, reads] = values
            tokens += int(spans[chosen].max()) * len(chosen)
            at += rows
        return Scores(result[0], result[1], tokens)

    def _rows(self, spans: Integers, even: bool) -> int:
        fits = max(self.budget // max(int(spans[0]), 1), 1)
        return min(fits, int((spans == spans[0]).sum())) if even else fits

    def _run(self, inputs: Inputs, chosen: Integers, logprobs: bool) -> tuple[Integers, Any]:
        reads = np.concatenate([np.flatnonzero(inputs.read_sequence == sequence) for sequence in chosen])
        part = inputs.chosen(chosen)
        spans = _spans(part)
        width = int(spans.max())
        shift = width - spans if self.padding == "left" else np.zeros_like(spans)
        owner = np.repeat(np.arange(part.m), part.lengths)
        columns = part.positions + shift[owner]
        symbols = np.full((part.m, width), self.filler, np.int64)
        visible = np.zeros((part.m, width), np.int64)
        # Some models number their tokens by which are not padding: between a sequence's ends the columns hold something else.
        inside = (np.arange(width) >= shift[:, None]) & (np.arange(width) < (spans + shift)[:, None])
        symbols = np.where(inside, part.symbols[part.offsets[:-1], None], symbols)
        symbols[owner, columns] = part.symbols
        visible[owner, columns] = 1
        read_at = columns[part.offsets[part.read_sequence] + part.read_index]
        with torch.inference_mode():
            logits, rows = self._forward(symbols, visible, shift, part.read_sequence, read_at)
            return reads, read(logits, rows, part.read_token, logprobs, has_independent_labels(self.model))

    def _forward(self, symbols: Integers, visible: Integers, shift: Integers, owner: Integers, read_at: Integers) -> tuple[Tensor, Integers]:
        width = symbols.shape[1]
        given: dict[str, Any] = self.embed(torch.from_numpy(symbols).to(self.device))
        if not visible.all():
            given["attention_mask"] = torch.from_numpy(visible).to(self.device)
        if self.takes_positions and not visible.all():
            given["position_ids"] = torch.from_numpy(np.maximum(np.arange(width) - shift[:, None], 0)).to(self.device)
        if self.classifies:
            return self.model(**given).logits, owner
        first = int(read_at.min())
        if self.keeps_logits:
            given["logits_to_keep"] = width - first
        logits: Tensor = self.model(**given, use_cache=False).logits
        kept = logits[:, -(width - first) :]
        return kept.flatten(0, 1), owner * (width - first) + read_at - first


def _spans(inputs: Inputs) -> Integers:
    """Number of columns of each sequence: up to its last position."""
    return inputs.positions[inputs.offsets[1:] - 1] + 1
