"""Saving a model without some of its parts: the columns that read them are zeroed, so that transformers loads it like any other model.

Shapes are unchanged: with grouped keys and values, and blocks of equal size, no saved configuration can express that a head is missing.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysp.models.ablation import Part
from raysp.models.architecture import Architecture, width_in
from raysp.models.loading import LoadedModel, quiet
from raysp.models.resident import NO_PADDING


def write_without(loaded: LoadedModel, architecture: Architecture, gone: Sequence[Part], folder: Path, *, rescale: bool) -> None:
    """Save the model and its tokenizer without these parts; with `rescale`, the remaining heads or neurons of a layer are scaled up. The model in memory is unchanged."""
    config = loaded.model.config.get_text_config()
    padding = config.pad_token_id
    try:
        if padding == NO_PADDING:
            config.pad_token_id = None
        with quiet(), operated(architecture, gone, rescale=rescale):
            loaded.model.save_pretrained(folder)
    finally:
        config.pad_token_id = padding
    loaded.tokenizer.save_pretrained(folder)


@contextmanager
def operated(architecture: Architecture, gone: Sequence[Part], *, rescale: bool) -> Generator[None]:
    """Within a `with` block, the weights lack these parts."""
    before: list[tuple[Any, Any]] = []
    columns: dict[tuple[int, str], list[range]] = {}
    try:
        with torch.no_grad():
            for part in gone:
                block = architecture.blocks[part.layer]
                if part.site in ("heads", "neurons"):
                    columns.setdefault((part.layer, part.site), []).append(range(part.start, part.stop))
                    continue
                for linear in (block.mlp,) if part.site == "mlp" else (block.attention, block.mlp):
                    _keep(before, linear)
                    linear.weight.zero_()
                    if linear.bias is not None:
                        linear.bias.zero_()
            for (layer, site), ranges in columns.items():
                linear: Any = architecture.blocks[layer].attention if site == "heads" else architecture.blocks[layer].mlp
                _keep(before, linear)
                _scale(linear, [column for each in ranges for column in each], rescale=rescale)
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in reversed(before):
                tensor.copy_(copy)


def _keep(before: list[tuple[Any, Any]], linear: Any) -> None:
    before += [(tensor, tensor.clone()) for tensor in (linear.weight, linear.bias) if tensor is not None]


def _scale(linear: Any, gone: Sequence[int], *, rescale: bool) -> None:
    factors = torch.ones(width_in(linear), dtype=linear.weight.dtype, device=linear.weight.device)
    factors[list(gone)] = 0
    if rescale:
        factors *= len(factors) / max(len(factors) - len(gone), 1)
    linear.weight.mul_(factors if isinstance(linear, nn.Linear) else factors[:, None])
