"""The computation that all adapters share: one prefix tree of all texts, and its hidden states below the first adapted layer.

A text is a path in the tree. Texts in one row of a batch share the nodes of their common beginning, and the layers below the first adapted one are computed only
once. The hidden states are held in memory, or in a file if they are too large. Independent of adapters.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysp.models.architecture import Architecture, replaced_forward
from raysp.models.inputs import Inputs, Integers, ragged_offsets, ragged_ranges
from raysp.models.memory import is_out_of_memory, release
from raysp.models.prefix_tree import PrefixTree, build_tree

#: Most bytes of hidden states that are held in memory; more go into a file.
HELD = 2 << 30
#: Nodes that go through the frozen layers at once.
PACK = {"cpu": 512, "cuda": 4096, "mps": 1024}
SMALLEST_PACK = 32


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids (int64 `(t,)`), of which those from `first` on are targets to predict."""

    ids: Integers
    first: int

    def __post_init__(self) -> None:
        if not 1 <= self.first < len(self.ids):
            raise ValueError(f"a text of {len(self.ids)} tokens has its first target at {self.first}; expected 1 to {len(self.ids) - 1}")


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """A batch: the nodes of each row, int64 `(rows, longest)`, of which the first `lengths` are real and the rest padding."""

    nodes: Integers
    lengths: Integers


class _ReachedError(Exception):
    """Raised to stop a forward pass once the wanted hidden states are there."""


@dataclass(slots=True)
class FrozenPrefix:
    """A model's blocks from `layer` on, which read the stored hidden states of the tree's nodes."""

    model: Any
    architecture: Architecture
    device: torch.device
    layer: int
    texts: tuple[Text, ...]
    tree: PrefixTree = field(init=False, repr=False)
    paths: tuple[Integers, ...] = field(init=False, repr=False)
    tokens: int = field(init=False, default=0)
    _hidden: Tensor = field(init=False, repr=False)
    _tuples: tuple[bool, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lengths = np.array([len(text.ids) for text in self.texts], np.int64)
        offsets = ragged_offsets(lengths)
        within = ragged_ranges(np.zeros_like(lengths), lengths)
        symbols = np.concatenate([text.ids for text in self.texts])
        everywhere = Inputs(symbols, within, offsets, np.repeat(np.arange(len(lengths)), lengths), within, symbols)
        self.tree = build_tree(everywhere)
        self.paths = tuple(self.tree.read_node[start:stop] for start, stop in itertools.pairwise(offsets))
        self._tuples = self._answers()
        self._hidden = self._store()
        self._fill()

    # ---- rows

    def rows(self, chosen: Sequence[Integers]) -> AdapterRows:
        """A batch with the nodes of several texts (numbers, int64) in each row, every node once."""
        found = [self.nodes(numbers) for numbers in chosen]
        lengths = np.array([len(nodes) for nodes in found], np.int64)
        nodes = np.full((len(found), int(lengths.max())), len(self.tree), np.int64)
        for row, some in enumerate(found):
            nodes[row, : len(some)] = some
        return AdapterRows(nodes, lengths)

    def nodes(self, numbers: Integers) -> Integers:
        """The nodes of these texts, ascending, int64, without their last tokens, which are predicted but predict nothing."""
        return np.unique(np.concatenate([self.paths[number][:-1] for number in numbers]))

    def run(self, rows: AdapterRows, wanted: Integers, whole: Sequence[Any]) -> Tensor:
        """The last block's output for some of the rows' nodes (places in the flattened rows, int64 `(k,)`), `(k, channels)`; differentiable if gradients are enabled.

        Position-wise modules of that block are applied to these nodes only, except for those that contain modules of `whole`.
        """
        filled, at = torch.from_numpy(rows.nodes), torch.from_numpy(wanted)
        entering = None if self.layer == 0 else self._hidden[filled.clamp(max=len(self.tree) - 1).to(self._hidden.device)].to(self.device)
        modules = [module for module in self._positionwise if not any(inner is kept for inner in module.modules() for kept in whole)]
        with replaced_forward(modules, [_at_some(module.forward, at) for module in modules]):
            reached = self._through(filled, entering, self.architecture.layers).flatten(0, 1)
            return reached[at.to(reached.device)]

    @property
    def _positionwise(self) -> list[Any]:
        """The position-wise modules of the last block: its MLP (the child with the projection that reads the neurons) and the projection that reads the heads."""
        block = self.architecture.blocks[-1]
        mlp = [child for child in block.module.children() if block.mlp is not None and any(inner is block.mlp for inner in child.modules())]
        return [*mlp, *([block.attention] if block.attention is not None else [])]

    def targets_of(self, number: int) -> int:
        """Number of targets of a text."""
        return len(self.texts[number].ids) - self.texts[number].first

    # ---- the model with some of its blocks

    def _through(self, nodes: Tensor, entering: Tensor | None, stop: int) -> Tensor:
        """The input of block `stop` (or the output of the last block), given the input of block `layer` as `entering` (None: run all blocks)."""
        reached: list[Tensor] = []
        blocks = self.architecture.blocks

        def out(*args: Any, **kwargs: Any) -> None:
            reached.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedError

        def last(*args: Any, **kwargs: Any) -> None:
            output = forward(*args, **kwargs)
            reached.append(output[0] if isinstance(output, tuple) else output)
            raise _ReachedError

        forward = blocks[-1].module.forward
        skipped = 0 if entering is None else self.layer
        replaced = {number: self._pass(number, entering) for number in range(skipped)}
        replaced |= {stop: out} if stop < len(blocks) else {len(blocks) - 1: last}
        with replaced_forward([blocks[i].module for i in replaced], list(replaced.values())), contextlib.suppress(_ReachedError):
            self._forward(nodes)
        return reached[0]

    def _pass(self, number: int, entering: Tensor | None) -> Any:
        """A block that passes its input on; the first passes on `entering`."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            passed = entering if number == 0 else args[0] if args else kwargs["hidden_states"]
            return (passed,) if self._tuples[number] else passed

        return forward

    def _forward(self, nodes: Tensor) -> None:
        tree, device = self.tree, self.device
        beyond = len(tree)
        real = nodes.clamp(max=beyond - 1).numpy()
        symbols, positions = (torch.from_numpy(array[real]).to(device) for array in (tree.symbols, tree.depth))
        end = torch.from_numpy(np.append(tree.end, beyond + 1))[nodes].to(device)
        at = nodes.to(device)
        # A node attends to itself and its ancestors; padding attends to padding.
        hidden = (at[:, None, :] > at[:, :, None]) | (end[:, None, :] <= at[:, :, None])
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device).masked_fill_(hidden, -torch.inf)
        self.model(input_ids=symbols, attention_mask=mask[:, None], position_ids=positions, use_cache=False)

    def _answers(self) -> tuple[bool, ...]:
        """Which blocks return tuples."""
        found = [False] * self.architecture.layers
        handles = [block.module.register_forward_hook(_note(found, i)) for i, block in enumerate(self.architecture.blocks)]
        try:
            with torch.no_grad():
                self.model(input_ids=torch.from_numpy(self.tree.symbols[None, :2]).to(self.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(found)

    # ---- hidden states below the first adapted layer

    def _store(self) -> Tensor:
        """Storage for the hidden states of all nodes, `(nodes, channels)`."""
        shape = (len(self.tree) if self.layer else 0, int(self.model.config.get_text_config().hidden_size))
        count, dtype = shape[0] * shape[1], self.model.dtype
        # Zeros, as in a new file: the last tokens of texts are never run, and one of them is the padding, which masked attention still multiplies.
        if count * dtype.itemsize <= HELD:
            try:
                return torch.zeros(shape, dtype=dtype, device=self.device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        # The mapping outlives the file's name, so nothing is left behind however this process ends.
        with tempfile.TemporaryDirectory(prefix="raysp-frozen-prefix-") as folder:
            return torch.from_file(str(Path(folder) / "hidden"), shared=True, size=count, dtype=dtype).view(shape)

    def _fill(self) -> None:
        if self.layer == 0:
            return
        size = PACK.get(self.device.type, PACK["cpu"])
        while True:
            try:
                self._run_packs(size)
            except RuntimeError as error:
                if not is_out_of_memory(error) or size <= SMALLEST_PACK:
                    raise
            else:
                return
            size = max(size // 2, SMALLEST_PACK)
            release(self.device)

    def _run_packs(self, size: int) -> None:
        with torch.inference_mode():
            for numbers in self._packs(size):
                nodes = self.nodes(numbers)
                reached = self._through(torch.from_numpy(nodes)[None], None, self.layer)
                self._hidden[torch.from_numpy(nodes).to(self._hidden.device)] = reached[0].to(self._hidden.device)
                self.tokens += len(nodes)

    def _packs(self, size: int) -> Generator[Integers]:
        """The texts in the order of the tree, as many at a time as have at most `size` nodes, or one."""
        order = np.argsort([path[-1] for path in self.paths], kind="stable")
        own = np.array([len(self.paths[number]) for number in order], np.int64)
        start = 0
        while start < len(order):
            stop = start + max(int(np.searchsorted(np.cumsum(own[start:]), size, side="right")), 1)
            yield order[start:stop]
            start = stop


def _at_some(forward: Any, at: Tensor) -> Any:
    """A module's forward pass at some positions of a batch of rows; the output is zero elsewhere."""

    def some(given: Tensor) -> Tensor:
        rows, places = given.shape[:-1], at.to(given.device)  # some models flatten rows before their MLP; layers may lie on several devices
        output = forward(given.reshape(-1, given.shape[-1])[places][None])[0]
        return output.new_zeros((rows.numel(), output.shape[-1])).index_copy(0, places.to(output.device), output).reshape(*rows, -1)

    return some


def _note(found: list[bool], number: int) -> Any:
    def hook(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001  torch passes the module
        found[number] = isinstance(output, tuple)

    return hook


def targets(frozen_prefix: FrozenPrefix, numbers: Integers) -> tuple[Integers, Integers, NDArray[np.int64]]:
    """For every target of some texts (numbers, int64): the text's place in `numbers`, the node that predicts it, its token, int64 `(targets,)` each."""
    which, nodes, tokens = list[Integers](), list[Integers](), list[Integers]()
    for place, number in enumerate(numbers):
        text = frozen_prefix.texts[number]
        count = len(text.ids) - text.first
        which.append(np.full(count, place))
        nodes.append(frozen_prefix.paths[number][text.first - 1 : -1])
        tokens.append(text.ids[text.first :])
    return np.concatenate(which), np.concatenate(nodes), np.concatenate(tokens)
