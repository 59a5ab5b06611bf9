"""A model run block by block, so that copies of an input share the layers before they begin to differ. Independent of components and masks.

The other arguments of a block (positions, attention mask) are recorded from one ordinary forward pass for each length; embedding and head are the model's own
forward pass with its blocks bypassed. All inputs of a batch have the same length, so nothing is padded.
"""

import contextlib
import inspect
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from raysp.models.architecture import Architecture, replaced_forward

#: Lengths whose recorded calls are kept.
LENGTHS_KEPT = 64
#: Most elements in the logits of one call of the head.
LOGITS_AT_ONCE = 50_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """How the model calls a block: its arguments apart from the hidden states, and whether it returns a tuple."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    by_name: bool
    gives_tuple: bool

    def __call__(self, module: Any, hidden: Tensor) -> Tensor:
        """Run the block on other hidden states, `(rows, length, channels)`."""
        output = module(hidden_states=hidden, **self.kwargs) if self.by_name else module(hidden, *self.args, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


class _ReachedError(Exception):
    """Raised to stop a forward pass once the wanted hidden states are there."""


@dataclass(slots=True)
class BlockwiseModel:
    """A model as a sequence of blocks."""

    model: Any
    architecture: Architecture
    device: torch.device
    _calls: OrderedDict[int, tuple[Call, ...]] = field(init=False, repr=False, default_factory=OrderedDict)
    _keeps: bool = field(init=False)

    def __post_init__(self) -> None:
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.model.dtype

    def calls(self, ids: Tensor) -> tuple[Call, ...]:
        """The calls of all blocks for inputs of this length (int64 `(any, length)`)."""
        length = ids.shape[1]
        if length not in self._calls:
            self._calls[length] = self._record(ids[:1])
            if len(self._calls) > LENGTHS_KEPT:
                self._calls.popitem(last=False)
        self._calls.move_to_end(length)
        return self._calls[length]

    def _record(self, ids: Tensor) -> tuple[Call, ...]:
        found: list[Call | None] = [None] * self.architecture.layers

        def note(number: int) -> Any:
            def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ARG001  torch passes the module
                rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
                found[number] = Call(args[1:], rest, not args, isinstance(output, tuple))

            return hook

        handles = [block.module.register_forward_hook(note(i), with_kwargs=True) for i, block in enumerate(self.architecture.blocks)]
        try:
            with torch.no_grad():
                self.forward(ids)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(call for call in found if call is not None)

    def entry(self, ids: Tensor, layer: int) -> Tensor:
        """The hidden states that enter a layer, `(rows, length, channels)`, for inputs int64 `(rows, length)`."""
        calls = self.calls(ids)
        reached: list[Tensor] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            reached.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedError

        with replaced_forward([self.architecture.blocks[0].module], [stop]), contextlib.suppress(_ReachedError):
            self.forward(ids)
        hidden = reached[0]
        for number in range(layer):
            hidden = calls[number](self.architecture.blocks[number].module, hidden)
        return hidden

    def logits(self, ids: Tensor, hidden: Tensor, first: int) -> Tensor:
        """Logits of the last block's output from column `first` on, `(rows, length - first, vocabulary)`; `(rows, classes)` for a classifier."""
        head = self.model.get_output_embeddings()
        if head is None:
            return self._head(ids, hidden)
        # What follows the blocks looks at each position alone. Cut out and contiguous they are one large product; as a slice, one small product a row.
        ids, hidden = ids[:, first:], hidden[:, first:].contiguous()
        rows = max(LOGITS_AT_ONCE // (ids.shape[1] * head.weight.shape[0]), 1)
        parts = [self._head(some, states) for some, states in zip(ids.split(rows), hidden.split(rows), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _head(self, ids: Tensor, hidden: Tensor) -> Tensor:
        # Whether blocks answer with tuples is the same at every length.
        calls, blocks = next(iter(self._calls.values())), self.architecture.blocks

        def bridge(number: int) -> Any:
            def forward(*args: Any, **kwargs: Any) -> Any:
                passed = hidden if number == len(blocks) - 1 else args[0] if args else kwargs["hidden_states"]
                return (passed,) if calls[number].gives_tuple else passed

            return forward

        with replaced_forward([block.module for block in blocks], [bridge(i) for i in range(len(blocks))]):
            return self.forward(ids, ids.shape[1])

    def forward(self, ids: Tensor, keep: int = 1) -> Tensor:
        """The model's own forward pass on ids `(rows, length)`: logits of the last `keep` positions if it supports that, of all otherwise."""
        options: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        if "use_cache" in inspect.signature(self.model.forward).parameters:
            options["use_cache"] = False
        return self.model(input_ids=ids, **options).logits
