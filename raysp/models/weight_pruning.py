"""Writing a model without some of its parts: zeroed columns of the projections that read them, so that transformers loads it as any other.

The shapes stay: with shared keys and values, and blocks of one size throughout, no saved configuration could say that a head is missing.
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
    """Save the model and its tokenizer without these parts; what stays of a layer's heads or neurons is scaled up if `rescale`. The model in memory is as before."""
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
    """Within the block the weights lack these parts."""
    before: list[tuple[Any, Any]] = []
    columns: dict[tuple[int, str], list[range]] = {}
    try:
        with torch.no_grad():
            for part in gone:
                block = architecture.blocks[part.layer]
                if part.tissue in ("heads", "neurons"):
                    columns.setdefault((part.layer, part.tissue), []).append(range(part.start, part.stop))
                    continue
                for linear in (block.mlp,) if part.tissue == "mlp" else (block.attention, block.mlp):
                    _keep(before, linear)
                    linear.weight.zero_()
                    if linear.bias is not None:
                        linear.bias.zero_()
            for (layer, tissue), ranges in columns.items():
                linear: Any = architecture.blocks[layer].attention if tissue == "heads" else architecture.blocks[layer].mlp
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
