"""Scoring sequences with common beginnings by a causal model: every distinct prefix is computed once.

The nodes of the prefix tree go through the model in depth-first order, in packs of equal size, each pack as a single row with explicit positions and the
ancestor relation as its attention mask. After a pack, only the keys and values on the path to the next node are kept. There is no padding, and attending to
the path costs as much as a cache would. Independent of masks, prompts and values.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raysp.models.inputs import Floats, Inputs, Integers, Scores
from raysp.models.memory import is_out_of_memory, release
from raysp.models.prefix_tree import PrefixTree, build_tree

Layers = list[tuple[Tensor, Tensor]]
SMALLEST_PACK = 16


@dataclass(slots=True)
class Root:
    """The keys (position and symbol) of the beginning common to a game's inputs and, once computed, its keys and values in every layer."""

    keys: Integers
    layers: Layers = field(default_factory=list)


@dataclass(slots=True)
class PackedScorer:
    """Scores inputs by prefix tree, `pack` nodes at once, halved when memory runs out.

    `embed` maps symbols (int64 tensor) to the model's input: token ids, or embeddings if there are symbols beyond the vocabulary.
    """

    model: Any
    device: torch.device
    embed: Callable[[Tensor], dict[str, Tensor]]
    pack: int
    keeps_logits: bool

    def score(self, inputs: Inputs, root: Root | None = None, *, logprobs: bool = True) -> Scores:
        """Logits and log-probabilities (NaN without `logprobs`) at the inputs' readouts.

        The part that all inputs share with `root` is taken from there and computed on first use. Raises torch.OutOfMemoryError if even a pack of
        `SMALLEST_PACK` nodes does not fit.
        """
        computed = 0
        while True:
            try:
                computed = self._fill(root) if root is not None else 0
                return self._score(inputs, root, computed, logprobs)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.pack <= SMALLEST_PACK:
                    raise
            self.pack = max(self.pack // 2, SMALLEST_PACK)
            release(self.device)

    def _score(self, inputs: Inputs, root: Root | None, computed: int, logprobs: bool) -> Scores:
        tree = build_tree(inputs, root.keys if root else None)
        layers = [(k[:, :, : tree.root], v[:, :, : tree.root]) for k, v in root.layers] if root and tree.root else []
        result = np.full((2, len(inputs.read_token)), np.nan)
        reads = np.argsort(tree.read_node, kind="stable")
        sorted_nodes = tree.read_node[reads]
        with torch.inference_mode():
            for start in range(0, len(tree), self.pack):
                stop = min(start + self.pack, len(tree))
                low, high = np.searchsorted(sorted_nodes, [start, stop])
                mine = reads[low:high]
                rows, which = np.unique(tree.read_node[mine] - start, return_inverse=True)
                logits, layers = self._run(tree, start, stop, layers, rows)
                if len(mine):
                    result[:, mine] = read(logits, which, inputs.read_token[mine], logprobs)
        return Scores(result[0], result[1], len(tree) + computed)

    def _fill(self, root: Root) -> int:
        """Compute the keys and values of the root path on first use; returns the number of tokens computed."""
        if root.layers or not len(root.keys):
            return 0
        nodes = np.arange(len(root.keys))
        everywhere = np.full(len(nodes), len(nodes) + 1)
        none = np.empty(0, np.int64)
        tree = PrefixTree(0, root.keys & 0xFFFFFFFF, root.keys >> 32, nodes, everywhere, none)
        layers: Layers = []
        with torch.inference_mode():
            for start in range(0, len(tree), self.pack):
                stop = min(start + self.pack, len(tree))
                _, layers = self._run(tree, start, stop, layers, none, keep_all=True)
        root.layers = layers
        return len(tree)

    def _run(self, tree: PrefixTree, start: int, stop: int, past: Layers, rows: Integers, *, keep_all: bool = False) -> tuple[Tensor, Layers]:
        """Run one pack: the logits of the wanted rows, and the keys and values on the path to node `stop`."""
        from transformers import DynamicCache

        path = tree.path(start)
        known = tree.root + len(path)
        cache: Any = DynamicCache(past) if known else DynamicCache()
        symbols = torch.from_numpy(tree.symbols[start:stop]).to(self.device)[None]
        positions = torch.from_numpy(tree.positions[start:stop]).to(self.device)[None]
        keep = torch.from_numpy(rows if len(rows) else np.zeros(1, np.int64)).to(self.device)
        output = self.model(
            **self.embed(symbols),
            position_ids=positions,
            attention_mask=self._mask(tree, path, start, stop),
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": keep} if self.keeps_logits else {}),
        )
        logits = output.logits[0] if self.keeps_logits else output.logits[0, keep]
        if keep_all:
            return logits, [(layer.keys, layer.values) for layer in cache.layers]
        if stop == len(tree):
            return logits, []
        nodes = np.concatenate([path, np.arange(start, stop)])
        on_path = np.concatenate([np.arange(tree.root), tree.root + np.flatnonzero(tree.end[nodes] > stop)])
        return logits, _select(cache, torch.from_numpy(on_path))

    def _mask(self, tree: PrefixTree, path: Integers, start: int, stop: int) -> Tensor:
        """Which of the path and the pack each node of the pack attends to: its ancestors and itself; additive, `(1, 1, q, kv)`."""
        columns = np.concatenate([np.full(tree.root, -1), path, np.arange(start, stop)])
        ends = np.concatenate([np.full(tree.root, len(tree) + 1), tree.end[path], tree.end[start:stop]])
        rows = torch.arange(start, stop, device=self.device)[:, None]
        first, end = torch.from_numpy(columns).to(self.device), torch.from_numpy(ends).to(self.device)
        mask = torch.zeros((stop - start, len(columns)), dtype=self.model.dtype, device=self.device)
        mask.masked_fill_((first > rows) | (end <= rows), -torch.inf)
        return mask[None, None]


def read(logits: Tensor, rows: Integers, tokens: Integers, logprobs: bool, independent: bool = False) -> Floats:
    """Logits and log-probabilities (or NaN) of tokens in rows of logits `(k, vocabulary)`; float64 `(2, r)`. `independent` labels have a sigmoid each.

    The normaliser is computed in at least float32, a few rows at a time: with a large vocabulary all of them could take more memory than the model.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    rows_at, tokens_at = torch.from_numpy(rows).to(logits.device), torch.from_numpy(tokens).to(logits.device)
    chosen = logits[rows_at, tokens_at].to(wide)
    if logprobs and independent:
        normalised = functional.logsigmoid(chosen)
    elif logprobs:
        normaliser = torch.cat([torch.logsumexp(some.to(wide), dim=-1) for some in logits.split(64)])
        normalised = chosen - normaliser[rows_at]
    else:
        normalised = torch.full_like(chosen, torch.nan)
    return torch.stack([chosen, normalised]).cpu().double().numpy()


def _select(cache: Any, index: Tensor) -> Layers:
    selected: Layers = []
    for layer in cache.layers:
        at = index.to(layer.keys.device)
        selected.append((layer.keys.index_select(2, at), layer.values.index_select(2, at)))
    return selected
