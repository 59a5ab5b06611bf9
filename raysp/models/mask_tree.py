"""Scoring masks over parts of a model: masks that agree up to a layer share the computation up to it.

Masks over a model's parts form a prefix tree whose levels are the layers: two masks that first differ in layer 7 share layers 0 to 6 if they are in one batch,
and batches follow the order of the tree. The layers below the lowest ablated part are run once for each input and kept. Inputs are grouped by length, so nothing
is padded and a batch gives the values of single passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raysp.masks import Masks
from raysp.models.ablation import Ablation, Bank, GateRows
from raysp.models.blockwise import BlockwiseModel
from raysp.models.classes import has_independent_labels
from raysp.models.inputs import Floats, Integers
from raysp.models.memory import is_out_of_memory, release

#: Rows of logits normalised at a time: with a large vocabulary all of them could take more memory than the model.
NORMALISED = 64


@dataclass(slots=True)
class Group:
    """Inputs of one length, int64 `(s, length)`, the positions `at` which they are ablated (bool `(s, length)`, None: all), and the readouts.

    Readout j is the score of token `read_token[j]` after column `read_index[j]` of input `read_sequence[j]`, int64 `(r,)` each; for a classifier that of class
    `read_token[j]`. `bank` holds the replacements (None: zeros), and `choices` those that each input may take, one int64 array for each input.
    """

    ids: Tensor
    read_sequence: Integers
    read_index: Integers
    read_token: Integers
    at: Tensor | None
    choices: Sequence[Integers]
    bank: Bank | None = None
    entry: Tensor | None = field(default=None, repr=False)
    intact: Tensor | None = field(default=None, repr=False)

    @property
    def length(self) -> int:
        """Number of tokens of each input."""
        return int(self.ids.shape[1])

    @property
    def first(self) -> int:
        """The first column with a readout."""
        return int(self.read_index.min())

    def taken(self, inputs: Integers, picks: Integers) -> Integers:
        """The replacement that each row takes, int64 `(rows,)`: `picks` are numbers of any size, the same for all inputs of a prompt."""
        return np.array([self.choices[i][pick % len(self.choices[i])] for i, pick in zip(inputs.tolist(), picks.tolist(), strict=True)], np.int64)


@dataclass(slots=True)
class MaskTree:
    """A model run block by block, with an ablation of its parts; at most `budget` tokens run at once, halved when memory runs out.

    For gradients, which hold the activations of all layers, `heavier` times fewer run at once; that is doubled when memory runs out.
    """

    blockwise: BlockwiseModel
    ablation: Ablation
    budget: int
    heavier: int = 2
    tokens: int = 0
    _lowest: int = field(init=False)
    _members: dict[int, list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._lowest = min(self.ablation.layers)
        self._members = {layer: self.ablation.members(layer) for layer in self.ablation.layers}

    # ---- values of masks

    def read(self, group: Group, masks: Masks, picks: Integers, wanted: frozenset[str]) -> dict[str, Floats]:
        """The wanted quantities at the group's readouts, float64 `(m, r)` each, for masks bool `(m, n)`.

        Quantities are `logits`, `logprobs`, `top` (1 where the token is the most probable) and `kl` (divergence from the intact model). `picks`, int64 `(m,)`,
        selects the replacement of each mask as in `Group.taken`. Raises torch.OutOfMemoryError if a single row does not fit.
        """
        count, inputs = len(masks), len(group.ids)
        found = {name: np.full((count, len(group.read_token)), np.nan) for name in wanted}
        order = np.lexsort(masks.T[::-1])
        mask_of, input_of = np.tile(order, inputs), np.repeat(np.arange(inputs), count)
        at = 0
        while at < len(mask_of):
            some = slice(at, at + max(self.budget // group.length, 1))
            try:
                self._read_rows(group, masks[mask_of[some]], input_of[some], picks[mask_of[some]], (mask_of[some], found))
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.budget <= group.length:
                    raise
                self.budget //= 2
                release(self.blockwise.device)
                continue
            at = some.stop
        return found

    def _read_rows(self, group: Group, masks: Masks, inputs: Integers, picks: Integers, into: tuple[Integers, dict[str, Floats]]) -> None:
        place, found = into
        with torch.no_grad():
            choice = group.taken(inputs, picks)
            tree = _Tree(inputs, choice, masks, self._members)
            hidden = self._run(group, tree)
            first = tree.first
            logits = self.blockwise.logits(group.ids[torch.from_numpy(inputs[first])], hidden, group.first)
            for read in range(len(group.read_token)):
                rows = np.flatnonzero(inputs == group.read_sequence[read])
                if len(rows) == 0:
                    continue
                nodes = torch.from_numpy(tree.node[rows]).to(logits.device)
                at_read = logits if logits.ndim == 2 else logits[:, int(group.read_index[read]) - group.first]
                for name, values in self._quantities(group, read, at_read[nodes], frozenset(found)).items():
                    found[name][place[rows], read] = values.cpu().double().numpy()

    def _quantities(self, group: Group, read: int, logits: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """The wanted quantities, `(rows,)` each, from the logits `(rows, vocabulary)` at one readout."""
        token = int(group.read_token[read])
        wide = torch.promote_types(logits.dtype, torch.float32)
        chosen = logits[:, token].to(wide)
        found = {"logits": chosen}
        if "top" in wanted:
            found["top"] = (logits.argmax(dim=-1) == token).to(wide)
        if has_independent_labels(self.blockwise.model):
            found["logprobs"] = functional.logsigmoid(chosen)
        elif wanted & {"logprobs", "kl"}:
            pieces = logits.split(NORMALISED)
            normalisers = [torch.logsumexp(some.to(wide), dim=-1) for some in pieces]
            found["logprobs"] = chosen - torch.cat(normalisers)
            if "kl" in wanted:
                assert group.intact is not None
                intact = group.intact[read].to(logits.device, wide)
                pairs = zip(pieces, normalisers, strict=True)
                found["kl"] = torch.cat([(intact.exp() * (intact - some.to(wide) + normaliser[:, None])).sum(dim=-1) for some, normaliser in pairs])
        return {name: found[name] for name in wanted}

    def remember_intact(self, group: Group) -> None:
        """Store the intact model's log-probabilities at every readout, float32 `(r, vocabulary)`, as the reference of `kl`."""
        found: list[Tensor] = []
        for start in range(0, len(group.read_token), rows := max(self.budget // group.length, 1)):
            inputs, columns = group.read_sequence[start : start + rows], group.read_index[start : start + rows]
            with torch.no_grad():
                tree = _Tree(inputs, np.zeros(len(inputs), np.int64), np.ones((len(inputs), len(self.ablation.parts)), dtype=np.bool_), self._members)
                hidden = self._run(group, tree)[torch.from_numpy(tree.node)]
                logits = self.blockwise.logits(group.ids[torch.from_numpy(inputs)], hidden, group.first)
                at = logits if logits.ndim == 2 else logits[torch.arange(len(inputs)), torch.from_numpy(columns - group.first)]
                found.append(torch.log_softmax(at.float(), dim=-1))
        group.intact = torch.cat(found)

    def _entry(self, group: Group) -> Tensor:
        if group.entry is None:
            with torch.no_grad():
                group.entry = torch.cat([self.blockwise.entry(some, self._lowest) for some in group.ids.split(max(self.budget // group.length, 1))])
            self.tokens += group.ids.numel() * self._lowest // self.blockwise.architecture.layers
        return group.entry

    def _run(self, group: Group, tree: "_Tree") -> Tensor:
        """The last block's output at every node of the tree, `(nodes, length, channels)`."""
        entry = self._entry(group)
        hidden = entry[torch.from_numpy(tree.inputs[tree.first]).to(entry.device)]
        calls, layers = self.blockwise.calls(group.ids), self.blockwise.architecture.layers
        passed = 0
        with self.ablation.installed(group.bank):
            for layer in range(self._lowest, layers):
                if layer in self._members:
                    parent = tree.part(layer)
                    if len(parent) > len(hidden):
                        hidden = hidden[torch.from_numpy(parent).to(hidden.device)]
                    self.ablation.rows = self._rows(group, tree)
                before = hidden
                hidden = calls[layer](self.blockwise.architecture.blocks[layer].module, before)
                if layer in self._members:
                    hidden = self.ablation.block(layer, before, hidden)
                passed += len(hidden)
        self.tokens += round(passed * group.length / layers)
        return hidden

    def _rows(self, group: Group, tree: "_Tree") -> GateRows:
        masks, inputs = tree.masks[tree.first], tree.inputs[tree.first]
        gates = torch.from_numpy(np.pad(masks, ((0, 0), (0, 1)), constant_values=True)).to(self.blockwise.device, self.blockwise.dtype)
        at = None if group.at is None else group.at[torch.from_numpy(inputs)]
        return GateRows(gates, torch.from_numpy(tree.choice[tree.first]), at)

    # ---- gradients

    def differentiate(self, group: Group, gates: Tensor, inputs: Integers, choice: Integers) -> Tensor:
        """Logits from the group's first readout on of rows with gates `(rows, n)`, as a function of them that can be differentiated."""
        entry = self._entry(group)
        hidden = entry[torch.from_numpy(inputs).to(entry.device)]
        at = None if group.at is None else group.at[torch.from_numpy(inputs)]
        rows = GateRows(torch.nn.functional.pad(gates, (0, 1), value=1.0), torch.from_numpy(choice), at)
        calls = self.blockwise.calls(group.ids)
        with self.ablation.installed(group.bank):
            self.ablation.rows = rows
            for layer in range(self._lowest, self.blockwise.architecture.layers):
                before = hidden
                hidden = self.ablation.block(layer, before, calls[layer](self.blockwise.architecture.blocks[layer].module, before))
        self.tokens += 2 * len(inputs) * group.length * (self.blockwise.architecture.layers - self._lowest) // self.blockwise.architecture.layers
        return self.blockwise.logits(group.ids[torch.from_numpy(inputs)], hidden, group.first)

    def recorded(self, ids: Tensor) -> Iterator[tuple[tuple[int, Any], Tensor]]:
        """The ablated tensors when inputs int64 `(s, length)` run through the intact model, as pairs of slot and `(s, length, channels)`."""
        with torch.no_grad():
            hidden, calls = self.blockwise.entry(ids, self._lowest), self.blockwise.calls(ids)
            with self.ablation.installed(), self.ablation.recording() as seen:
                for layer in range(self._lowest, max(self._members) + 1):
                    before = hidden
                    hidden = calls[layer](self.blockwise.architecture.blocks[layer].module, before)
                    self.ablation.block(layer, before, hidden)
                    for slot in [slot for slot in seen if slot[0] == layer]:
                        yield slot, seen.pop(slot).reshape(len(ids), ids.shape[1], -1)


class _Tree:
    """Rows (an input, a replacement and a mask each) that separate layer by layer. `first` is a row of every node, `node` the node of every row."""

    def __init__(self, inputs: Integers, choice: Integers, masks: Masks, members: dict[int, list[int]]) -> None:
        self.inputs, self.choice, self.masks, self._members = inputs, choice, masks, members
        self.first: NDArray[np.intp]
        self.node: NDArray[np.intp]
        self._name(np.stack([inputs, choice], axis=1))

    def part(self, layer: int) -> NDArray[np.intp]:
        """Separate the rows that differ in this layer; for every new node, the node it was part of."""
        before = self.node
        bits = np.packbits(self.masks[:, self._members[layer]], axis=1)
        self._name(np.concatenate([before[:, None], bits], axis=1))
        return before[self.first]

    def _name(self, keys: NDArray[Any]) -> None:
        _, self.first, node = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        self.node = node.reshape(-1)
