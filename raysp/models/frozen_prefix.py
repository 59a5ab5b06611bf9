"""What many adapters have in common of their texts: one prefix tree of all of them, and its hidden states below the first adapted layer.

A text is a path in the tree. Texts of a row of a batch share the nodes with which they begin, and everything below the first adapted layer is computed once
for good. The hidden states lie in memory, or in a file where they would take too much of it. Knows nothing of adapters.
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

#: Bytes of hidden states that are held in memory; more go into a file.
HELD = 2 << 30
#: Nodes that go through the frozen layers at once.
PACK = {"cpu": 512, "cuda": 4096, "mps": 1024}
SMALLEST_PACK = 32


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids (int64 `(t,)`) of which those from `first` on are the targets that a model is to say."""

    ids: Integers
    first: int

    def __post_init__(self) -> None:
        if not 1 <= self.first < len(self.ids):
            raise ValueError(f"a text of {len(self.ids)} tokens has its first target at {self.first}; expected 1 to {len(self.ids) - 1}")


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """What goes through the model at once: the nodes of each row, int64 `(rows, longest)`, rows of `lengths` nodes and the rest filled up."""

    nodes: Integers
    lengths: Integers


class _ReachedError(Exception):
    """The hidden states that were wanted are there."""


@dataclass(slots=True)
class FrozenPrefix:
    """A model's blocks from `layer` on, fed from what the ones below made of the tree's nodes."""

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
        """The nodes of several texts (numbers, int64) a row, each once."""
        found = [self.nodes(numbers) for numbers in chosen]
        lengths = np.array([len(nodes) for nodes in found], np.int64)
        nodes = np.full((len(found), int(lengths.max())), len(self.tree), np.int64)
        for row, some in enumerate(found):
            nodes[row, : len(some)] = some
        return AdapterRows(nodes, lengths)

    def nodes(self, numbers: Integers) -> Integers:
        """The nodes of these texts that something is predicted from or after, ascending, int64: their last tokens are only ever predicted."""
        return np.unique(np.concatenate([self.paths[number][:-1] for number in numbers]))

    def run(self, rows: AdapterRows, wanted: Integers, whole: Sequence[Any]) -> Tensor:
        """What the last block gives for some of the rows' nodes (places in the flattened rows, int64 `(k,)`), `(k, channels)`; with a gradient where torch keeps one.

        What that block does to each position alone is done to those only, but for modules that hold some of `whole`.
        """
        filled, at = torch.from_numpy(rows.nodes), torch.from_numpy(wanted)
        entering = None if self.layer == 0 else self._hidden[filled.clamp(max=len(self.tree) - 1).to(self._hidden.device)].to(self.device)
        modules = [module for module in self._positionwise if not any(inner is kept for inner in module.modules() for kept in whole)]
        with replaced_forward(modules, [_at_some(module.forward, at) for module in modules]):
            reached = self._through(filled, entering, self.architecture.layers).flatten(0, 1)
            return reached[at.to(reached.device)]

    @property
    def _positionwise(self) -> list[Any]:
        """Modules of the last block that look at each position alone: its MLP (the child that the projection behind the neurons is in) and the projection behind the heads."""
        block = self.architecture.blocks[-1]
        mlp = [child for child in block.module.children() if block.mlp is not None and any(inner is block.mlp for inner in child.modules())]
        return [*mlp, *([block.attention] if block.attention is not None else [])]

    def targets_of(self, number: int) -> int:
        """How many tokens of a text are to be said."""
        return len(self.texts[number].ids) - self.texts[number].first

    # ---- the model with some of its blocks

    def _through(self, nodes: Tensor, entering: Tensor | None, stop: int) -> Tensor:
        """What reaches block `stop` (or leaves the last) when `entering` is what reaches block `layer` (None: all blocks run)."""
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
        """A block that does nothing; the first hands over what enters the first adapted one."""

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
        # A node sees itself and its ancestors; what rows are filled up with sees only its like.
        hidden = (at[:, None, :] > at[:, :, None]) | (end[:, None, :] <= at[:, :, None])
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device).masked_fill_(hidden, -torch.inf)
        self.model(input_ids=symbols, attention_mask=mask[:, None], position_ids=positions, use_cache=False)

    def _answers(self) -> tuple[bool, ...]:
        """Which blocks answer with tuples."""
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
        """PruningBudget for the hidden states of all nodes, `(nodes, channels)`."""
        shape = (len(self.tree) if self.layer else 0, int(self.model.config.get_text_config().hidden_size))
        count, dtype = shape[0] * shape[1], self.model.dtype
        # Zeros, as a new file has: the last tokens of texts are never run, and rows are filled up with one of them, which attention sees behind its mask.
        if count * dtype.itemsize <= HELD:
            try:
                return torch.zeros(shape, dtype=dtype, device=self.device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        # The mapping outlives the file's name, so that nothing stays behind however this process ends.
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
        """The texts in the order of the tree, so many at a time as have no more nodes than that, or one."""
        order = np.argsort([path[-1] for path in self.paths], kind="stable")
        own = np.array([len(self.paths[number]) for number in order], np.int64)
        start = 0
        while start < len(order):
            stop = start + max(int(np.searchsorted(np.cumsum(own[start:]), size, side="right")), 1)
            yield order[start:stop]
            start = stop


def _at_some(forward: Any, at: Tensor) -> Any:
    """A module's forward pass on some of the positions of a batch of rows; the others come out as zeros."""

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
    """Of texts (numbers, int64) where each target is predicted and what it is: text's place in `numbers`, node, token, int64 `(targets,)` each."""
    which, nodes, tokens = list[Integers](), list[Integers](), list[Integers]()
    for place, number in enumerate(numbers):
        text = frozen_prefix.texts[number]
        count = len(text.ids) - text.first
        which.append(np.full(count, place))
        nodes.append(frozen_prefix.paths[number][text.first - 1 : -1])
        tokens.append(text.ids[text.first :])
    return np.concatenate(which), np.concatenate(nodes), np.concatenate(tokens)
