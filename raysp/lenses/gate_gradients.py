"""Gradient estimates of removing parts of a model: each component's output is multiplied by a gate, and the value is differentiated with respect to the gates.

First order: attribution patching (Nanda 2023; Syed et al. 2023), d value / d gate at the intact model, one backward pass for all components. Second order:
the change of that gradient once a component is removed, a Hessian-vector product with the full step from 1 to 0 instead of an infinitesimal one. It costs no
more and captures saturation. RelP is attribution patching with the rules of `raysp.models.relevance` in place of derivatives. All are approximations, to be
verified by exact ablations.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from raysp.gradients import GradientReport, PairTerms
from raysp.lenses.readings import Reading
from raysp.masks import Values
from raysp.models.classes import log_probabilities
from raysp.models.inputs import Floats, Integers
from raysp.models.mask_tree import Group, MaskTree
from raysp.models.memory import is_out_of_memory, release
from raysp.models.relevance import propagation_rules, uncovered

#: Levels of the gates between closed and open at which gradients are averaged. Evenly spaced ones: the path is too rough for a quadrature of higher order.
STEPS = 8
#: The most components that are removed one at a time for the second order, strongest by the first; and the most pairs that are kept.
MOST_OUT, MOST_PAIRS = 256, 20_000
#: The most other prompts whose activations gradients are averaged over, if each mask draws from one.
DONORS = 4


def gradient_report(mask_tree: MaskTree, reading: Reading, max_order: int) -> GradientReport:
    """attribution_patching, integrated_gates and relp; with `max_order` 2 pairs. A note says why there is no relp.

    They are the gradient at the intact model, its mean over the way on which all gates close together, and the relevance at the intact model. Integrated gates add up over the components to the value of the intact model minus that of the empty one. The second order takes one backward pass for
    each of the (at most `MOST_OUT` strongest) components; its single effects of these are exact.
    """
    n = _n(mask_tree)
    levels = np.repeat(np.concatenate([[1.0], (np.arange(STEPS) + 0.5) / STEPS])[:, None], n, axis=1)
    # Without a choice to make, both orders are one call, whose batches are full.
    together = max_order > 1 and n <= MOST_OUT
    values, gradients = slopes(mask_tree, reading, np.concatenate([levels, _without_each(np.arange(n), n)]) if together else levels)
    intact, at_intact, halfway = float(values[0]), gradients[0], gradients[1 : len(levels)].mean(axis=0)
    pairs = None
    if together:
        pairs = _second_order(np.arange(n), intact, at_intact, values[len(levels) :], gradients[len(levels) :])
    elif max_order > 1:
        out = np.sort(np.argsort(-np.abs(at_intact), kind="stable")[:MOST_OUT])
        pairs = _second_order(out, intact, at_intact, *slopes(mask_tree, reading, _without_each(out, n)))
    effects = {"attribution_patching": at_intact[None], "integrated_gates": halfway[None]}
    lacking = uncovered(mask_tree.blockwise, reading.groups[0].ids[:1], min(mask_tree.ablation.layers))
    if lacking is None:
        effects["relp"] = slopes(mask_tree, reading, np.ones((1, n)), relevance=True)[1]
    notes = () if lacking is None else (lacking,)
    return GradientReport(effects, leading="attribution_patching", intact=intact, pairs=pairs, max_order=min(max_order, 2), notes=notes)


def _without_each(out: Integers, n: int) -> Floats:
    """Gates, float64 `(len(out), n)`, that each close one component of `out`."""
    gates = np.ones((len(out), n))
    gates[np.arange(len(out)), out] = 0.0
    return gates


def _second_order(out: Integers, intact: float, at_intact: Values, values: Values, gradients: Floats) -> PairTerms:
    """Single effects, exact for the components `out`, and pairs from the gradients (`(len(out), n)`) once each of these is removed."""
    effects = at_intact.copy()
    effects[out] = intact - values
    return _pairs(out, gradients - at_intact, effects)


def _pairs(out: Integers, changes: Floats, singles: Values) -> PairTerms:
    """The strongest deviations of pairs (i, j): how much more j matters, to first order, once i is removed; averaged if both orders are known.

    `changes` float64 `(len(out), n)` holds this for every i of `out`.
    """
    table = changes.copy()
    both = table[:, out]
    table[:, out] = (both + both.T) / 2
    # A pair known in both orders is represented by one entry.
    table[:, out] = np.where(np.arange(len(out))[:, None] < np.arange(len(out)), table[:, out], 0.0)
    strength = np.abs(table).ravel()
    chosen = np.argsort(-strength, kind="stable")[:MOST_PAIRS]
    first, second = np.unravel_index(chosen[strength[chosen] > 0], table.shape)
    return PairTerms(np.sort(np.stack([out[first], second], axis=1).astype(np.int64), axis=1), table[first, second], singles)


def slopes(mask_tree: MaskTree, reading: Reading, gates: Floats, picks: Integers | None = None, *, relevance: bool = False) -> tuple[Values, Floats]:
    """The value and its gradient at each row of gates (float64 `(rows, n)`, 1 open and 0 closed): float64 `(rows,)` and `(rows, n)`.

    An accuracy has no gradient: the mean margin of target over foil stands in for it. `picks`, int64 `(rows,)`, selects the replacement of each row as in
    `Group.taken`; with None, replacements that are drawn are averaged over the first few. With `relevance`, the gradient follows the rules of
    `raysp.models.relevance`. Raises torch.OutOfMemoryError if not even one row fits.
    """
    values, gradients = np.zeros(len(gates)), np.zeros(gates.shape)
    weights = reading.weights() if reading.reduction != "kl" else None
    for group, numbers in reading.numbered():
        if weights is None and group.intact is None:
            mask_tree.remember_intact(group)
        some = np.full(len(group.read_token), 1 / len(reading.answers)) if weights is None else weights[numbers]
        for work, value, gradient in _batches(mask_tree, reading, group, gates, (some, picks, relevance)):
            np.add.at(values, work, value)
            np.add.at(gradients, work, gradient)
    return values, gradients


def _batches(
    mask_tree: MaskTree, reading: Reading, group: Group, gates: Floats, told: tuple[Floats, Integers | None, bool]
) -> Iterator[tuple[Integers, Values, Floats]]:
    """A group's share of the values, some rows at a time: row numbers of `gates`, values and gradients. `told` are the readouts' weights, the picks, and whether rules apply."""
    weights, picks, relevance = told
    work, inputs, choice, share = _rows(group, len(gates), picks)
    at = 0
    while at < len(work):
        rows = max(mask_tree.budget // (mask_tree.heavier * group.length), 1)
        some = slice(at, at + rows)
        try:
            found = _batch(mask_tree, reading, group, gates[work[some]], (inputs[some], choice[some], share[some], weights), relevance=relevance)
        except RuntimeError as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
            mask_tree.heavier *= 2
            release(mask_tree.blockwise.device)
            continue
        yield work[some], *found
        at = some.stop


def _rows(group: Group, count: int, picks: Integers | None) -> tuple[Integers, Integers, Integers, Floats]:
    """What is computed for `count` rows of gates: their numbers, the group's inputs, the replacements, and the share of each in the row's value."""
    if picks is not None:
        work, inputs = np.tile(np.arange(count), len(group.ids)), np.repeat(np.arange(len(group.ids)), count)
        return work, inputs, group.taken(inputs, picks[work]), np.ones(len(work))
    donors = [choices[:DONORS] for choices in group.choices]
    counts = np.array([len(each) for each in donors])
    inputs = np.repeat(np.repeat(np.arange(len(donors)), counts), count)
    return np.tile(np.arange(count), int(counts.sum())), inputs, np.repeat(np.concatenate(donors), count), 1.0 / counts[inputs]


def _batch(
    mask_tree: MaskTree, reading: Reading, group: Group, gates: Floats, told: tuple[Integers, Integers, Floats, Floats], *, relevance: bool
) -> tuple[Values, Floats]:
    inputs, choice, share, weights = told
    # A gate's gradient is a sum over channels and positions, which needs float32 whatever the model computes in.
    wide = torch.promote_types(mask_tree.blockwise.dtype, torch.float32)
    leaf = torch.tensor(gates, dtype=wide, device=mask_tree.blockwise.device, requires_grad=True)
    with torch.enable_grad():
        with propagation_rules(mask_tree.blockwise.model, leaf) if relevance else nullcontext():
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
    """A readout's share of the value, `(rows,)`."""
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
