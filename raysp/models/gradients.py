"""Gradients of a value with respect to the input embeddings, on the path from zero vectors to the tokens' own. Independent of prompts and components."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysp.errors import EvaluationError
from raysp.models.classes import log_probabilities
from raysp.models.inputs import Floats, Inputs
from raysp.models.memory import is_out_of_memory, release
from raysp.models.resident import ResidentModel

# A backward pass keeps the activations that a forward pass discards, so several times fewer tokens fit at once.
SHARE = 4


@dataclass(frozen=True, slots=True)
class GradientInputs:
    """The sequences behind one value, which is the sum of the readouts' scores (logits or log-probabilities) times `weights`, float64 `(r,)`.

    Every sequence begins with the same tokens, those of the context; `moving` (bool `(k,)`) are those of them that are scaled.
    """

    inputs: Inputs
    weights: Floats
    moving: NDArray[np.bool_]
    logprobs: bool


def along(model: ResidentModel, reading: GradientInputs, scales: Floats, budget: int | None = None) -> tuple[Floats, Floats]:
    """The value with the scaled tokens' embeddings multiplied by each scale (float64 `(s,)`), and the gradients there times the unscaled embeddings, `(s, k)`.

    The latter, one number per token, are the first-order gains of the value from adding the whole vector. At most `budget` tokens go through
    the model at once, by default a quarter of the usual number. EvaluationError if a single sequence does not fit into memory.
    """
    values, slopes = np.zeros(len(scales)), np.zeros((len(scales), len(reading.moving)))
    for sequence in range(reading.inputs.m):
        part = reading.inputs.chosen(np.array([sequence]))
        weights = reading.weights[reading.inputs.read_sequence == sequence]
        rows = max((budget or model.budget // SHARE) // len(part.symbols), 1)
        at = 0
        while at < len(scales):
            chosen = slice(at, at + rows)
            try:
                found = _along(model, part, weights, reading, scales[chosen])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if rows == 1:
                    raise EvaluationError(
                        f"the gradient of one input of {len(part.symbols)} tokens does not fit into memory on {model.loaded.device}"
                    ) from error
                rows //= 2
                release(model.loaded.device)
                continue
            values[chosen] += found[0]
            slopes[chosen] += found[1]
            at += rows
    return values, slopes


def _along(model: ResidentModel, part: Inputs, weights: Floats, reading: GradientInputs, scales: Floats) -> tuple[Floats, Floats]:
    device, length = model.loaded.device, len(part.symbols)
    moving = np.zeros(length, np.bool_)
    moving[: len(reading.moving)] = reading.moving
    factors = np.where(moving, scales[:, None], 1.0)
    with model.lock, torch.enable_grad():
        # Through the module rather than from its weights, as some models scale embeddings in it. The weights themselves need no gradients.
        table = model.loaded.model.get_input_embeddings()
        whole: Tensor = table(torch.from_numpy(part.symbols).to(device)).detach()
        rows = (whole * torch.from_numpy(factors).to(device, whole.dtype)[:, :, None]).requires_grad_()
        scores = read_scores(model, {"inputs_embeds": rows}, part, logprobs=reading.logprobs)
        values = (scores * torch.from_numpy(weights).to(scores.device, scores.dtype)).sum(-1)
        (gradients,) = torch.autograd.grad(values.sum(), rows)
        wide = torch.promote_types(whole.dtype, torch.float32)
        slopes = (gradients.to(wide) * whole.to(wide)).sum(-1)[:, : len(reading.moving)]
        return values.detach().cpu().double().numpy(), slopes.cpu().double().numpy()


def read_scores(model: ResidentModel, entries: dict[str, Any], part: Inputs, *, logprobs: bool) -> Tensor:
    """The readouts of one sequence, `(s, r)` in at least float32, for each of the `s` rows of the model's `entries`, such as embeddings `(s, length, width)`."""
    tokens = torch.from_numpy(part.read_token)
    if model.loaded.task == "classifier":
        read: Tensor = model.loaded.model(**entries).logits[:, None].expand(-1, len(tokens), -1)
    else:
        length, first = len(part.symbols), int(part.read_index.min())
        options: dict[str, Any] = {"logits_to_keep": length - first} if model.reference.keeps_logits else {}
        logits: Tensor = model.loaded.model(**entries, use_cache=False, **options).logits
        read = logits[:, torch.from_numpy(part.read_index - length).to(logits.device)]
    read = read.to(torch.promote_types(read.dtype, torch.float32))
    read = log_probabilities(model.loaded.model, read) if logprobs else read
    return read[:, torch.arange(len(tokens)), tokens.to(read.device)]
