"""The peers of `mechanistic.py`, each in its fastest documented form on the same weights: functions from masks over all heads to values.

A peer that is not installed raises ImportError when it is made.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from raysp.lenses.mechanistic import MechanisticGame
from raysp.masks import Masks, Values

Method = Callable[[Masks], Values]
#: Masks in one pass of the batched peers.
ROWS = 64


def _asked(game: MechanisticGame) -> tuple[Any, torch.Tensor, int, int, int]:
    """Model, ids `(1, length)`, target, foil, heads per layer."""
    answer = game.reading.answers[0]
    model = game.model.loaded.model
    ids = torch.from_numpy(game.reading.contexts[0][0])[None].to(model.device)
    return model, ids, answer.target_ids[0], answer.foil_ids[0], game.mask_tree.blockwise.architecture.blocks[0].heads


def head_loop(game: MechanisticGame) -> Method:
    """A hook for each head and one forward pass for each mask: the usual loop."""
    model, ids, target, foil, heads = _asked(game)

    def value(mask: Any) -> float:
        handles: list[Any] = []
        for layer, block in enumerate(model.model.layers):
            for head in np.flatnonzero(~mask[layer * heads : (layer + 1) * heads]):

                def ablate(module: Any, inputs: Any, head: int = int(head)) -> Any:  # noqa: ARG001  torch passes the module
                    channels = inputs[0].clone()
                    width = channels.shape[-1] // heads
                    channels[..., head * width : (head + 1) * width] = 0
                    return (channels,)

                handles.append(block.self_attn.o_proj.register_forward_pre_hook(ablate))
        try:
            logits = model(ids).logits[0, -1]
            return float(logits[target] - logits[foil])
        finally:
            for handle in handles:
                handle.remove()

    def method(masks: Masks) -> Values:
        with torch.no_grad():
            return np.array([value(mask) for mask in masks])

    return method


def nnsight(game: MechanisticGame) -> Method:
    """nnsight: one trace per batch, with the rows' masks multiplied into the input of every output projection."""
    from nnsight import LanguageModel  # pyright: ignore[reportMissingImports]  of the extra `bench`

    _, ids, target, foil, heads = _asked(game)
    wrapped = LanguageModel(game.model.loaded.model, tokenizer=game.model.loaded.tokenizer)

    def method(masks: Masks) -> Values:
        found: list[Values] = []
        for start in range(0, len(masks), ROWS):
            some = torch.from_numpy(masks[start : start + ROWS]).to(ids.device, torch.float32)
            by_layer = some.view(len(some), -1, heads).repeat_interleave(_width(game), dim=2)
            with torch.no_grad(), wrapped.trace(ids.expand(len(some), -1), logits_to_keep=1, use_cache=False):
                for layer in range(by_layer.shape[1]):
                    projection = wrapped.model.layers[layer].self_attn.o_proj
                    projection.input = projection.input * by_layer[:, layer][:, None, :]
                logits = wrapped.lm_head.output[:, -1].save()
            found.append((logits[:, target] - logits[:, foil]).double().cpu().numpy())
        return np.concatenate(found)

    return method


def _width(game: MechanisticGame) -> int:
    return game.mask_tree.blockwise.architecture.blocks[0].head_width


def transformer_lens(game: MechanisticGame) -> Method:
    """transformer-lens: the same weights in its bridge, with a hook per layer on `hook_z` that applies the rows' masks."""
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]  of the extra `bench`

    model, ids, target, foil, heads = _asked(game)
    # The bridge takes the model's modules apart, so it gets a copy.
    bridge = TransformerBridge.boot_transformers(
        "HuggingFaceTB/SmolLM2-135M-Instruct", hf_model=copy.deepcopy(model), tokenizer=game.model.loaded.tokenizer, dtype=torch.float32
    )

    def method(masks: Masks) -> Values:
        found: list[Values] = []
        for start in range(0, len(masks), ROWS):
            some = torch.from_numpy(masks[start : start + ROWS]).to(ids.device, torch.float32).view(-1, len(model.model.layers), heads)

            def hook(layer: int, some: torch.Tensor = some) -> Any:
                def ablate(z: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001  the library passes it
                    kept = some[:, layer]
                    return z * kept[:, None, :, None] if z.ndim == 4 else z * kept.repeat_interleave(z.shape[-1] // heads, dim=1)[:, None]

                return ablate

            hooks = [(f"blocks.{layer}.attn.hook_z", hook(layer)) for layer in range(some.shape[1])]
            with torch.no_grad():
                logits = bridge.run_with_hooks(ids.expand(len(some), -1), fwd_hooks=hooks)[:, -1]
            found.append((logits[:, target] - logits[:, foil]).double().cpu().numpy())
        return np.concatenate(found)

    return method


METHODS: dict[str, Callable[[MechanisticGame], Method]] = {"head_loop": head_loop, "nnsight": nnsight, "transformer_lens": transformer_lens}
