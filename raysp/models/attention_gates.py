"""The derivative of a value in gates on attention: what a model's answer loses, to first order, if others stop attending to some tokens.

A gate multiplies the attention weights of a token, before they are normalised, wherever a token of another owner attends to it. A closed gate thus hides the token
from all but its owner's own tokens, which is nearly what removing them does; an open one changes nothing. The derivative in an open gate is that in a number
added to the attention scores, so one backward pass through an additive attention mask gives it for all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysp.errors import EvaluationError
from raysp.models.gradients import read_scores
from raysp.models.inputs import Floats, Inputs, Integers
from raysp.models.memory import available_bytes, is_out_of_memory
from raysp.models.resident import REFUSALS, ResidentModel

#: Bytes of an attention weight, whatever the dtype of the model.
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of a context of k tokens: `owner` int64 `(k,)`, what each belongs to (-1: it has no gate), and which are `closed`, bool `(k,)`.

    `causal`: tokens attend to earlier ones only.
    """

    owner: Integers
    closed: NDArray[np.bool_]
    causal: bool


def gate_slopes(model: ResidentModel, inputs: Inputs, weights: Floats, gates: Gates, *, logprobs: bool) -> tuple[float, Floats] | None:
    """The value and its derivative in the gate of each token of the context, float64 `(k,)`; None if the model takes no such attention mask.

    The value is the sum of the readouts' scores (logits, or with `logprobs` log-probabilities) times `weights`, float64 `(r,)`. Every sequence begins with the
    context, which has the `gates`. Closed gates have the derivative 0. EvaluationError if a sequence does not fit into memory.
    """
    longest, available = int(inputs.lengths.max()), available_bytes(model.loaded.device)
    if available is not None and _kept_bytes(model, longest) > available:
        raise EvaluationError(f"attention gates of {longest:,} tokens do not fit into memory on {model.loaded.device}")
    value, slopes = 0.0, np.zeros(len(gates.owner))
    for sequence in range(inputs.m):
        part = inputs.chosen(np.array([sequence]))
        try:
            found = _of_sequence(model, part, weights[inputs.read_sequence == sequence], gates, logprobs=logprobs)
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise EvaluationError(f"attention gates of {len(part.symbols)} tokens do not fit into memory on {model.loaded.device}") from error
            return None
        value += found[0]
        slopes += found[1]
    return value, slopes


def _kept_bytes(model: ResidentModel, length: int) -> int:
    """The memory of the attention weights of every layer and head, which a backward pass through the mask needs, and of as much beside them; 0 if unknown.

    On CPUs, to run out of memory is to be killed by the system.
    """
    config = model.loaded.model.config.get_text_config()
    layers, heads = getattr(config, "num_hidden_layers", None) or 0, getattr(config, "num_attention_heads", None) or 0
    return int(2 * FLOAT * layers * heads * length**2)


def _of_sequence(model: ResidentModel, part: Inputs, weights: Floats, gates: Gates, *, logprobs: bool) -> tuple[float, Floats]:
    device, length, dtype = model.loaded.device, len(part.symbols), model.loaded.model.dtype
    behind = length - len(gates.owner)
    owners = torch.from_numpy(np.concatenate([gates.owner, np.full(behind, -1)])).to(device)
    closed = torch.from_numpy(np.concatenate([gates.closed, np.zeros(behind, np.bool_)])).to(device)
    gated = (owners[:, None] != owners) & (owners >= 0)
    entries: dict[str, Any] = {"position_ids": torch.from_numpy(part.positions).to(device)[None]} if model.takes_positions else {}
    with model.lock, torch.enable_grad():
        added = torch.zeros(length, dtype=torch.promote_types(dtype, torch.float32), device=device, requires_grad=True)
        mask = torch.where(gated, added, 0.0).masked_fill(gated & closed, -torch.inf)
        if gates.causal:
            mask = mask.masked_fill(torch.ones_like(gated).triu(1), -torch.inf)
        entries |= {"input_ids": torch.from_numpy(part.symbols).to(device)[None], "attention_mask": mask.to(dtype)[None, None]}
        scores = read_scores(model, entries, part, logprobs=logprobs)
        value = (scores * torch.from_numpy(weights).to(scores.device, scores.dtype)).sum()
        slopes: Tensor = torch.autograd.grad(value, added)[0]
    return float(value.item()), slopes[: len(gates.owner)].double().cpu().numpy()
