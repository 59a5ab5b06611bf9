"""What gradients say of removing parts of a model: each component's output is multiplied by a gate, and the value is differentiated with respect to the gates.

First order: attribution patching (Nanda 2023; Syed et al. 2023), d value / d gate of the intact model, one backward pass for all components. Second order: how that
gradient changes when a component is gone, a Hessian-vector product over the whole way from 1 to 0 instead of an infinitesimal step, which costs as little and
sees what saturates. Both are approximations, to be verified by exact ablations.
"""

import numpy as np
import torch
from torch import Tensor

from raysp.game import Values
from raysp.lenses.readings import Reading
from raysp.models.branching import Branching, Group
from raysp.models.inputs import Floats, Integers
from raysp.spectral.fourier import FourierSurrogate

#: Gates between closed and open at which gradients are averaged.
STEPS = 8
#: Components that are taken out one at a time for the second order, the strongest by the first; and pairs that are kept.
MOST_OUT, MOST_PAIRS = 256, 20_000
#: Rows hold their activations for the backward pass: so many times fewer run at once than without gradients.
HEAVIER = 2


def attribution_patching(branching: Branching, reading: Reading) -> Values:
    """The gradient at the intact model, float64 `(n,)`: about what removing each component takes from the value."""
    return slopes(branching, reading, np.ones((1, _n(branching))))[1][0]


def integrated_gates(branching: Branching, reading: Reading) -> Values:
    """The mean gradient while all gates close together, float64 `(n,)`; over all components it adds up to the value of the intact model less that of the empty one."""
    levels = (np.arange(STEPS) + 0.5) / STEPS
    return slopes(branching, reading, np.repeat(levels[:, None], _n(branching), axis=1))[1].mean(axis=0)


def estimate(branching: Branching, reading: Reading, max_order: int) -> FourierSurrogate:
    """Singles from the gradient at the intact model; with `max_order` 2 pairs from the gradients with each component gone, and these components' effects exactly."""
    n = _n(branching)
    whole = np.ones((1, n))
    if max_order == 1:
        intact, at_intact = slopes(branching, reading, whole)
        return FourierSurrogate.from_deviations(n, float(intact[0]), {(i,): float(effect) for i, effect in enumerate(at_intact[0])})
    out = np.arange(n)
    if n > MOST_OUT:
        out = np.sort(np.argsort(-np.abs(slopes(branching, reading, whole)[1][0]), kind="stable")[:MOST_OUT])
    gates = np.ones((len(out), n))
    gates[np.arange(len(out)), out] = 0.0
    values, gradients = slopes(branching, reading, np.concatenate([whole, gates]))
    effects = gradients[0].copy()
    effects[out] = values[0] - values[1:]
    singles = {(i,): float(effect) for i, effect in enumerate(effects)}
    return FourierSurrogate.from_deviations(n, float(values[0]), singles | _pairs(out, gradients[1:] - gradients[0]))


def _pairs(out: Integers, changes: Floats) -> dict[tuple[int, ...], float]:
    """The deviation of each pair (i, j): by how much j matters more, to first order, once i is gone; the mean of both ways where both are known."""
    n = changes.shape[1]
    known = np.zeros((n, n))
    known[out] = 1.0
    table = np.zeros((n, n))
    table[out] = changes
    count = known + known.T
    pairs = (table + table.T) / np.maximum(count, 1.0)
    first, second = np.triu_indices(n, 1)
    strength = np.abs(pairs[first, second])
    chosen = np.argsort(-strength, kind="stable")[:MOST_PAIRS]
    chosen = chosen[strength[chosen] > 0]
    return {(int(i), int(j)): float(pairs[i, j]) for i, j in zip(first[chosen], second[chosen], strict=True)}


def slopes(branching: Branching, reading: Reading, gates: Floats) -> tuple[Values, Floats]:
    """The value and its gradient at each row of gates (float64 `(rows, n)`, 1 open and 0 closed): float64 `(rows,)` and `(rows, n)`.

    Of an accuracy, which has no gradient, the mean margin of target over foil stands in.
    """
    values, gradients = np.zeros(len(gates)), np.zeros(gates.shape)
    weights = reading.weights() if reading.reduction != "kl" else np.zeros(0)
    for group, numbers in reading.numbered():
        if reading.reduction == "kl" and group.intact is None:
            branching.remember_intact(group)
        rows = max(branching.budget // (HEAVIER * group.length), 1)
        for sequence in range(len(group.ids)):
            reads = np.flatnonzero(group.read_sequence == sequence).tolist()
            for start in range(0, len(gates), rows):
                some = torch.tensor(gates[start : start + rows], dtype=branching.relay.dtype, device=branching.relay.device, requires_grad=True)
                with torch.enable_grad():
                    told = np.full(len(some), sequence), np.full(len(some), group.choices[sequence, 0])
                    logits = branching.differentiate(group, some, *told)
                    parts = [_read(group, read, logits, reading, float(weights[numbers[read]]) if len(weights) else 0.0) for read in reads]
                    total = torch.stack(parts).sum(dim=0)
                    (gradient,) = torch.autograd.grad(total.sum(), some)
                values[start : start + rows] += total.detach().double().cpu().numpy()
                gradients[start : start + rows] += gradient.double().cpu().numpy()
    return values, gradients


def _read(group: Group, read: int, logits: Tensor, reading: Reading, weight: float) -> Tensor:
    """A readout's part of the value, `(rows,)`."""
    here = logits if logits.ndim == 2 else logits[:, int(group.read_index[read]) - group.first]
    here = here.to(torch.promote_types(here.dtype, torch.float32))
    if reading.reduction == "kl":
        assert group.intact is not None
        intact = group.intact[read].to(here.device, here.dtype)
        return (intact.exp() * (intact - torch.log_softmax(here, dim=-1))).sum(dim=-1) / len(reading.answers)
    token = int(group.read_token[read])
    score = torch.log_softmax(here, dim=-1)[:, token] if reading.answers[0].needs_logprobs else here[:, token]
    return weight * score


def _n(branching: Branching) -> int:
    return len(branching.ablation.parts)
