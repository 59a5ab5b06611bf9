"""What gradients say of removing parts of a model: each component's output is multiplied by a gate, and the value is differentiated with respect to the gates.

First order: attribution patching (Nanda 2023; Syed et al. 2023), d value / d gate of the intact model, one backward pass for all components. Second order: how that
gradient changes when a component is gone, a Hessian-vector product over the whole way from 1 to 0 instead of an infinitesimal step, which costs as little and
sees what saturates. Both are approximations, to be verified by exact ablations.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from raysp.lenses.readings import Reading
from raysp.masks import Values
from raysp.models.classes import log_probabilities
from raysp.models.inputs import Floats, Integers
from raysp.models.mask_tree import Group, MaskTree
from raysp.models.memory import is_out_of_memory, release
from raysp.spectral.fourier import FourierSurrogate

#: Gates between closed and open at which gradients are averaged.
STEPS = 8
#: Components that are taken out one at a time for the second order, the strongest by the first; and pairs that are kept.
MOST_OUT, MOST_PAIRS = 256, 20_000
#: Rows hold the activations of all layers for the backward pass: so many times fewer run at once than without gradients.
HEAVIER = 2
#: Other prompts at most whose activations gradients are averaged over, where each mask draws from one.
DONORS = 4


def attribution_patching(mask_tree: MaskTree, reading: Reading) -> Values:
    """The gradient at the intact model, float64 `(n,)`: about what removing each component takes from the value."""
    return slopes(mask_tree, reading, np.ones((1, _n(mask_tree))))[1][0]


def integrated_gates(mask_tree: MaskTree, reading: Reading) -> Values:
    """The mean gradient while all gates close together, float64 `(n,)`; over all components it adds up to the value of the intact model less that of the empty one."""
    levels = (np.arange(STEPS) + 0.5) / STEPS
    return slopes(mask_tree, reading, np.repeat(levels[:, None], _n(mask_tree), axis=1))[1].mean(axis=0)


def estimate(mask_tree: MaskTree, reading: Reading, max_order: int) -> FourierSurrogate:
    """Singles from the gradient at the intact model; with `max_order` 2 pairs from the gradients with each component gone, and these components' effects exactly."""
    n = _n(mask_tree)
    whole = np.ones((1, n))
    if max_order == 1:
        intact, at_intact = slopes(mask_tree, reading, whole)
        return FourierSurrogate.from_deviations(n, float(intact[0]), {(i,): float(effect) for i, effect in enumerate(at_intact[0])})
    out = np.arange(n)
    if n > MOST_OUT:
        out = np.sort(np.argsort(-np.abs(slopes(mask_tree, reading, whole)[1][0]), kind="stable")[:MOST_OUT])
    gates = np.ones((len(out), n))
    gates[np.arange(len(out)), out] = 0.0
    values, gradients = slopes(mask_tree, reading, np.concatenate([whole, gates]))
    effects = gradients[0].copy()
    effects[out] = values[0] - values[1:]
    singles = {(i,): float(effect) for i, effect in enumerate(effects)}
    return FourierSurrogate.from_deviations(n, float(values[0]), singles | _pairs(out, gradients[1:] - gradients[0]))


def _pairs(out: Integers, changes: Floats) -> dict[tuple[int, ...], float]:
    """The deviation of each pair (i, j), the strongest: by how much j matters more, to first order, once i is gone; the mean of both ways where both are known.

    `changes` float64 `(len(out), n)` says so for every i of `out`.
    """
    table = changes.copy()
    both = table[:, out]
    table[:, out] = (both + both.T) / 2
    # Of a pair known both ways one entry stands for both.
    table[:, out] = np.where(np.arange(len(out))[:, None] < np.arange(len(out)), table[:, out], 0.0)
    strength = np.abs(table).ravel()
    chosen = np.argsort(-strength, kind="stable")[:MOST_PAIRS]
    first, second = np.unravel_index(chosen[strength[chosen] > 0], table.shape)
    return {(int(min(out[i], j)), int(max(out[i], j))): float(table[i, j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)}


def slopes(mask_tree: MaskTree, reading: Reading, gates: Floats) -> tuple[Values, Floats]:
    """The value and its gradient at each row of gates (float64 `(rows, n)`, 1 open and 0 closed): float64 `(rows,)` and `(rows, n)`.

    Of an accuracy, which has no gradient, the mean margin of target over foil stands in; of replacements that are drawn, the mean over the first few.
    Raises torch.OutOfMemoryError when a single row does not fit.
    """
    values, gradients = np.zeros(len(gates)), np.zeros(gates.shape)
    weights = reading.weights() if reading.reduction != "kl" else None
    for group, numbers in reading.numbered():
        if weights is None and group.intact is None:
            mask_tree.remember_intact(group)
        some = np.full(len(group.read_token), 1 / len(reading.answers)) if weights is None else weights[numbers]
        for work, value, gradient in _batches(mask_tree, reading, group, gates, some):
            np.add.at(values, work, value)
            np.add.at(gradients, work, gradient)
    return values, gradients


def _batches(mask_tree: MaskTree, reading: Reading, group: Group, gates: Floats, weights: Floats) -> Iterator[tuple[Integers, Values, Floats]]:
    """A group's parts of the values, some rows at a time: the row of gates that each is of, its value and its gradient."""
    donors = [choices[:DONORS] for choices in group.choices]
    counts = np.array([len(each) for each in donors])
    inputs = np.repeat(np.repeat(np.arange(len(donors)), counts), len(gates))
    choice = np.repeat(np.concatenate(donors), len(gates))
    share = 1.0 / counts[inputs]
    work = np.tile(np.arange(len(gates)), int(counts.sum()))
    at, rows = 0, max(mask_tree.budget // (HEAVIER * group.length), 1)
    while at < len(work):
        some = slice(at, at + rows)
        try:
            found = _batch(mask_tree, reading, group, gates[work[some]], (inputs[some], choice[some], share[some], weights))
        except RuntimeError as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
            rows //= 2
            release(mask_tree.blockwise.device)
            continue
        yield work[some], *found
        at = some.stop


def _batch(mask_tree: MaskTree, reading: Reading, group: Group, gates: Floats, told: tuple[Integers, Integers, Floats, Floats]) -> tuple[Values, Floats]:
    inputs, choice, share, weights = told
    leaf = torch.tensor(gates, dtype=mask_tree.blockwise.dtype, device=mask_tree.blockwise.device, requires_grad=True)
    with torch.enable_grad():
        logits = mask_tree.differentiate(group, leaf, inputs, choice)
        total = torch.zeros(len(gates), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
        for read in range(len(group.read_token)):
            rows = np.flatnonzero(inputs == group.read_sequence[read])
            if len(rows):
                index = torch.from_numpy(rows).to(logits.device)
                total = total.index_add(0, index, _read(group, read, logits[index], reading, float(weights[read])))
        total = total * torch.from_numpy(share).to(total)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
    return total.detach().cpu().double().numpy(), gradient.cpu().double().numpy()


def _read(group: Group, read: int, logits: Tensor, reading: Reading, weight: float) -> Tensor:
    """A readout's part of the value, `(rows,)`."""
    here = logits if logits.ndim == 2 else logits[:, int(group.read_index[read]) - group.first]
    here = here.to(torch.promote_types(here.dtype, torch.float32))
    if reading.reduction == "kl":
        assert group.intact is not None
        intact = group.intact[read].to(here.device, here.dtype)
        return weight * (intact.exp() * (intact - torch.log_softmax(here, dim=-1))).sum(dim=-1)
    token = int(group.read_token[read])
    score = (log_probabilities(reading.replacements.mask_tree.blockwise.model, here) if reading.answers[0].needs_logprobs else here)[:, token]
    return weight * score


def _n(mask_tree: MaskTree) -> int:
    return len(mask_tree.ablation.parts)
