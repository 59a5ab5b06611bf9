"""Taking parts of a model away while it runs, row by row of a batch. Knows parts and gates, not prompts or values.

A part is some channels of one of four tensors of a layer: the heads' outputs before the projection that reads them, the neurons before theirs, what the MLP
adds to the residual stream, and what the whole block adds. Its gate is 1 where it stays and 0 where something takes its place: nothing, a constant, or what the
same part did elsewhere. Gates between the two make the value a function that can be differentiated.
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
    tissue: HookSite
    start: int
    stop: int

    @property
    def slot(self) -> Slot:
        """The tensor it is in."""
        return self.layer, self.tissue


@dataclass(frozen=True, slots=True)
class Bank:
    """What takes the place of what is left out: of each tensor `(k, length or 1, channels)`, one of the k for each row."""

    tensors: Mapping[Slot, Tensor]

    def of(self, slot: Slot, choice: Tensor) -> Tensor:
        """What rows with this choice (int64 `(rows,)`) get, `(rows or 1, length or 1, channels)`."""
        kept = self.tensors[slot]
        return kept if len(kept) == 1 else kept.index_select(0, choice.to(kept.device))


@dataclass(slots=True)
class GateRows:
    """The rows under way: gates `(rows, n + 1)`, the last of them 1, and which of the bank's replacements each takes, int64 `(rows,)`.

    `at` are the positions concerned, bool `(rows, length)`; None for all.
    """

    gates: Tensor
    choice: Tensor
    at: Tensor | None = None


@dataclass(slots=True)
class Ablation:
    """The parts of a game, one a component, in its order; whether what stays of a layer's heads or neurons is scaled up for what does not."""

    architecture: Architecture
    parts: Sequence[Part]
    rescale: bool = False
    rows: GateRows | None = field(init=False, repr=False, default=None)
    bank: Bank | None = field(init=False, repr=False, default=None)
    owners: dict[Slot, Tensor] = field(init=False)
    _record: dict[Slot, Tensor] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.owners = {}
        for number, part in enumerate(self.parts):
            owner = self.owners.setdefault(part.slot, torch.full((width(self.architecture, part.slot),), len(self.parts)))
            owner[part.start : part.stop] = number

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The tensors concerned, by layer."""
        return tuple(sorted(self.owners))

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers concerned."""
        return tuple(sorted({layer for layer, _ in self.owners}))

    def members(self, layer: int) -> list[int]:
        """The components of a layer."""
        return [number for number, part in enumerate(self.parts) if part.layer == layer]

    @contextmanager
    def installed(self, bank: Bank | None = None) -> Generator[None]:
        """Within the block the model's layers do as `rows` tells them, with what the bank has (None: nothing) in place of what is left out."""
        handles: list[Any] = []
        self.bank = bank
        try:
            for layer, tissue in self.slots:
                block = self.architecture.blocks[layer]
                if tissue == "heads":
                    handles.append(block.attention.register_forward_pre_hook(self._before((layer, tissue))))  # pyright: ignore[reportOptionalMemberAccess]
                elif tissue == "neurons":
                    handles.append(block.mlp.register_forward_pre_hook(self._before((layer, tissue))))  # pyright: ignore[reportOptionalMemberAccess]
                elif tissue == "mlp":
                    handles.append(block.mlp.register_forward_hook(self._after((layer, tissue))))  # pyright: ignore[reportOptionalMemberAccess]
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.rows = self.bank = None

    def block(self, layer: int, before: Tensor, after: Tensor) -> Tensor:
        """What a whole block gives, where whole blocks are left out: what it was given, and what takes the place of what it adds."""
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
        # A sum of differences would round where the gate is 1.
        return self._where(after * gate + instead * (1 - gate), after)

    def _told(self) -> GateRows:
        assert self.rows is not None, "rows are told before a layer runs"
        return self.rows

    def _where(self, altered: Tensor, tensor: Tensor) -> Tensor:
        """What is altered at the positions concerned, and what was there elsewhere."""
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
        """What stands in place of a tensor; None while nothing is altered."""
        if self._record is not None:
            self._record[slot] = tensor
            return None
        return None if self.rows is None else self._altered(slot, tensor)

    def _altered(self, slot: Slot, tensor: Tensor) -> Tensor:
        """Gates on the channels of a tensor `(rows, length, channels)`, which some models flatten to `(rows * length, channels)`."""
        rows = self._told()
        shape = tensor.shape
        tensor = tensor.reshape(len(rows.gates), -1, shape[-1])
        gate = rows.gates.to(tensor.device)[:, self.owners[slot].to(tensor.device)].to(tensor.dtype)[:, None, :]
        altered = tensor * gate
        if self.rescale and slot[1] in ("heads", "neurons"):
            altered = altered * (gate.shape[-1] / gate.sum(dim=-1, keepdim=True).clamp(min=1.0))
        if self.bank is not None:
            altered = altered + (1 - gate) * self.bank.of(slot, rows.choice).to(tensor.device, tensor.dtype)
        return self._where(altered, tensor).reshape(shape)

    @contextmanager
    def recording(self) -> Generator[dict[Slot, Tensor]]:
        """Within the block nothing is altered, and the dictionary holds what each tensor was when last run through."""
        self._record = {}
        try:
            yield self._record
        finally:
            self._record = None


def width(architecture: Architecture, slot: Slot) -> int:
    """Channels of a tensor, as far as parts can tell them apart: what a layer adds as a whole is one."""
    block = architecture.blocks[slot[0]]
    return {"heads": block.heads * block.head_width, "neurons": block.neurons, "mlp": 1, "block": 1}[slot[1]]
