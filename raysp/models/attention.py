"""Attention rollout (Abnar & Zuidema, ACL 2020), for sequences of token ids."""

import contextlib
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysp.errors import EvaluationError
from raysp.models.inputs import Floats, Integers
from raysp.models.memory import is_out_of_memory
from raysp.models.resident import REFUSALS, ResidentModel


def rollout(model: ResidentModel, symbols: Integers) -> Floats | None:
    """The contribution of each token to the position that is read out, float64 `(k,)`, for token ids int64 `(k,)`; None if the model returns no attentions.

    A causal model is read at its last position, a bidirectional classifier at its first or, if its configuration says that it pools by the mean, at all alike.
    The attention of a layer is the mean over its heads, plus the identity for the residual connection, with rows normalised to one. EvaluationError if the
    attentions do not fit into memory.
    """
    layers = _attentions(model, symbols)
    if layers is None:
        return None
    length = len(symbols)
    causal = all(not np.triu(layer, 1).any() for layer in layers)
    pooled = getattr(model.loaded.model.config, "classifier_pooling", None) == "mean"
    reach = np.full(length, 1 / length) if pooled and not causal else np.eye(length)[-1 if causal else 0]
    for layer in reversed(layers):
        mixed = layer + np.eye(length)
        reach = reach @ (mixed / mixed.sum(axis=1, keepdims=True))
    return reach


def _attentions(model: ResidentModel, symbols: Integers) -> list[Floats] | None:
    """The attention of every layer from row to column, averaged over heads, float64 `(k, k)`."""
    options: dict[str, Any] = {"logits_to_keep": 1} if model.reference.keeps_logits else {}
    if model.loaded.task == "causal":
        options["use_cache"] = False
    ids = torch.from_numpy(symbols).to(model.loaded.device)[None]
    with model.lock, torch.inference_mode():
        try:
            with _eager(model.loaded.model):
                found = getattr(model.loaded.model(input_ids=ids, output_attentions=True, **options), "attentions", None)
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise EvaluationError(f"the attentions of {len(symbols)} tokens do not fit into memory on {model.loaded.device}") from error
            return None
        if not found or not all(_is_square(layer, len(symbols)) for layer in found):
            return None
        return [layer[0].cpu().double().mean(0).numpy() for layer in found]


def _is_square(layer: Tensor | None, length: int) -> bool:
    return layer is not None and layer.ndim == 4 and tuple(layer.shape[-2:]) == (length, length)


@contextlib.contextmanager
def _eager(model: Any) -> Generator[None]:
    """Within a `with` block, use eager attention: the fused kernels never materialise the weights."""
    before = getattr(model.config, "_attn_implementation", None)
    if before in (None, "eager"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
