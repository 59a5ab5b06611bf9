"""Ablation of parts of a model during its forward pass, separately for each row of a batch. Independent of prompts and values.

A part is a range of channels in one of four tensors of a layer: the outputs of the heads before their projection, the neurons before theirs, the output of the
MLP, and the contribution of the whole block to the residual stream. A gate of 1 keeps the part and 0 replaces it by zero, a constant, or its activation on
another input. Gates between 0 and 1 make the value differentiable in them.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from raysp.models.architecture import Architecture

HookSite = Literal["heads", "neurons", "mlp", "block"]
Slot = tuple[int, HookSite]


@dataclass(frozen=True, slots=True)
class Part:
    """Channels `start:stop` of one tensor of a layer."""

    layer: int
    site: HookSite
    start: int
    stop: int

    @property
    def slot(self) -> Slot:
        """The tensor that contains it, as (layer, site)."""
        return self.layer, self.site


@dataclass(frozen=True, slots=True)
class Bank:
    """Replacement activations: for each tensor `(k, length or 1, channels)`, of which every row takes one of the k."""

    tensors: Mapping[Slot, Tensor]

    def of(self, slot: Slot, choice: Tensor) -> Tensor:
        """The replacements for rows with this choice (int64 `(rows,)`), `(rows or 1, length or 1, channels)`."""
        kept = self.tensors[slot]
        return kept if len(kept) == 1 else kept.index_select(0, choice.to(kept.device))


@dataclass(slots=True)
class GateRows:
    """The gates of the current batch, `(rows, n + 1)` with 1 in the last column, and the replacement that each row takes from the bank, int64 `(rows,)`.

    `at` marks the ablated positions, bool `(rows, length)`; None for all.
    """

    gates: Tensor
    choice: Tensor
    at: Tensor | None = None


@dataclass(slots=True)
class Ablation:
    """The parts of a game, one for each component in order. With `rescale`, the kept heads or neurons of a layer are scaled up to make up for the ablated ones."""

    architecture: Architecture
    parts: Sequence[Part]
    rescale: bool = False
    rows: GateRows | None = field(init=False, repr=False, default=None)
    bank: Bank | None = field(init=False, repr=False, default=None)
    owners: dict[Slot, Tensor] = field(init=False)
    _narrowest: dict[Slot, int] = field(init=False, repr=False)
    _record: dict[Slot, Tensor] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.owners, self._narrowest = {}, {}
        for number, part in enumerate(self.parts):
            owner = self.owners.setdefault(part.slot, torch.full((width(self.architecture, part.slot),), len(self.parts)))
            owner[part.start : part.stop] = number
            self._narrowest[part.slot] = min(part.stop - part.start, self._narrowest.get(part.slot, part.stop - part.start))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The tensors with ablated parts, in the order of layers."""
        return tuple(sorted(self.owners))

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers with ablated parts, ascending."""
        return tuple(sorted({layer for layer, _ in self.owners}))

    def members(self, layer: int) -> list[int]:
        """The numbers of the components in a layer."""
        return [number for number, part in enumerate(self.parts) if part.layer == layer]

    @contextmanager
    def installed(self, bank: Bank | None = None) -> Generator[None]:
        """Within a `with` block, ablate as `rows` says, replacing parts from the bank (None: by zero)."""
        handles: list[Any] = []
        self.bank = bank
        try:
            for layer, site in self.slots:
                block = self.architecture.blocks[layer]
                if site == "heads":
                    handles.append(block.attention.register_forward_pre_hook(self._before((layer, site))))  # pyright: ignore[reportOptionalMemberAccess]
                elif site == "neurons":
                    handles.append(block.mlp.register_forward_pre_hook(self._before((layer, site))))  # pyright: ignore[reportOptionalMemberAccess]
                elif site == "mlp":
                    handles.append(block.mlp.register_forward_hook(self._after((layer, site))))  # pyright: ignore[reportOptionalMemberAccess]
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.rows = self.bank = None

    def block(self, layer: int, before: Tensor, after: Tensor) -> Tensor:
        """The output of a block that may be ablated as a whole: its input, plus the replacement for what it adds."""
        slot: Slot = (layer, "block")
        if slot not in self.owners:
            return after
        if self._record is not None:
            self._record[slot] = after - before.to(after.device)
            return after
        rows = self._told()
        before = before.to(after.device)  # the model may be spread over several
        gate = rows.gates.to(after.device)[:, self.owners[slot].to(after.device)].to(after.dtype)[:, None, :]
        instead = before if self.bank is None else before + self.bank.of(slot, rows.choice).to(after.device, after.dtype)
        # Adding a gated difference would round even where the gate is 1.
        return self._where(after * gate + instead * (1 - gate), after)

    def _told(self) -> GateRows:
        assert self.rows is not None, "rows are set before a layer runs"
        return self.rows

    def _where(self, altered: Tensor, tensor: Tensor) -> Tensor:
        """The altered tensor at ablated positions, the original elsewhere."""
        at = self._told().at
        return altered if at is None else torch.where(at.to(tensor.device)[:, :, None], altered, tensor)

    def _before(self, slot: Slot) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG001  torch passes the module
            return None if (altered := self._seen(slot, inputs[0])) is None else (altered, *inputs[1:])

        return hook

    def _after(self, slot: Slot) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:  # noqa: ARG001  torch passes these
            return self._seen(slot, output)

        return hook

    def _seen(self, slot: Slot, tensor: Tensor) -> Tensor | None:
        """The tensor to use in place of this one; None if nothing changes."""
        if self._record is not None:
            self._record[slot] = tensor
            return None
        return None if self.rows is None else self._altered(slot, tensor)

    def _altered(self, slot: Slot, tensor: Tensor) -> Tensor:
        """A tensor `(rows, length, channels)` with its gates applied; some models flatten it to `(rows * length, channels)`."""
        rows = self._told()
        shape = tensor.shape
        tensor = tensor.reshape(len(rows.gates), -1, shape[-1])
        gate = rows.gates.to(tensor.device)[:, self.owners[slot].to(tensor.device)].to(tensor.dtype)[:, None, :]
        altered = tensor * gate
        if self.rescale and slot[1] in ("heads", "neurons"):
            # With any part kept, the sum exceeds the floor by a margin, so that the value is smooth in the gates; a lower floor would give steep slopes at none.
            altered = altered * (gate.shape[-1] / gate.sum(dim=-1, keepdim=True).clamp(min=self._narrowest[slot] / 2))
        if self.bank is not None:
            altered = altered + (1 - gate) * self.bank.of(slot, rows.choice).to(tensor.device, tensor.dtype)
        return self._where(altered, tensor).reshape(shape)

    @contextmanager
    def recording(self) -> Generator[dict[Slot, Tensor]]:
        """Within a `with` block, alter nothing and record the latest value of each tensor in the dictionary."""
        self._record = {}
        try:
            yield self._record
        finally:
            self._record = None


def width(architecture: Architecture, slot: Slot) -> int:
    """Number of channels of a tensor that parts can address separately; the output of a whole MLP or block counts as one."""
    block = architecture.blocks[slot[0]]
    return {"heads": block.heads * block.head_width, "neurons": block.neurons, "mlp": 1, "block": 1}[slot[1]]
