"""From a model's answers under a mask to one value: inputs are grouped by length, scores gathered, and prompts averaged."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from raysp.lenses.answers import Answers
from raysp.lenses.contexts import Context
from raysp.lenses.replacements import Replacements
from raysp.masks import Masks, Values, pack
from raysp.models.inputs import Floats, Integers, Scores
from raysp.models.mask_tree import Group, MaskTree

#: The probability with which a guessing model is mistaken for one that can do a task.
RISK = 0.05


@dataclass(slots=True)
class Reading:
    """Prompts with their answers (`reduction` mean, accuracy or kl), as groups of inputs of one length. `at` are positions ablated of each prompt, None for all."""

    answers: Sequence[Answers]
    contexts: Sequence[Context]
    at: Sequence[Integers] | None
    replacements: Replacements
    reduction: str
    groups: list[Group] = field(init=False, repr=False)
    _numbers: list[Integers] = field(init=False, repr=False)
    _reads: list[slice] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._reads = []
        lengths: dict[int, list[tuple[int, Integers, list[tuple[int, int, int]]]]] = {}
        number = 0
        for prompt, (answer, context) in enumerate(zip(self.answers, self.contexts, strict=True)):
            inputs = answer.inputs([context])
            reads = list(zip(inputs.read_sequence.tolist(), inputs.read_index.tolist(), inputs.read_token.tolist(), strict=True))
            if self.reduction == "kl":  # the whole next-token distribution rather than a particular token
                reads = [(0, len(context[0]) - 1, 0)]
            begin = number
            for sequence in sorted({sequence for sequence, _, _ in reads}):
                ids = context[0] if self.reduction == "kl" else inputs.symbols[inputs.offsets[sequence] : inputs.offsets[sequence + 1]]
                mine = [(index, token) for owner, index, token in reads if owner == sequence]
                lengths.setdefault(len(ids), []).append((prompt, ids, [(number + i, index, token) for i, (index, token) in enumerate(mine)]))
                number += len(mine)
            self._reads.append(slice(begin, number))
        self.groups, self._numbers = [], []
        for items in lengths.values():
            self._add_group(items)

    def _add_group(self, items: Sequence[tuple[int, Integers, list[tuple[int, int, int]]]]) -> None:
        flat = [(sequence, *read) for sequence, (_, _, reads) in enumerate(items) for read in reads]
        owner, numbers, index, token = (np.array(column, np.int64) for column in zip(*flat, strict=True))
        prompts = [prompt for prompt, _, _ in items]
        device = self.replacements.mask_tree.blockwise.device
        bank, choices = self.replacements.of(prompts, [ids for _, ids, _ in items])
        ids = torch.from_numpy(np.stack([ids for _, ids, _ in items])).to(device)
        at = None
        if self.at is not None:
            at = torch.zeros(ids.shape, dtype=torch.bool)
            for row, prompt in enumerate(prompts):
                at[row, torch.from_numpy(self.at[prompt])] = True
        self.groups.append(Group(ids, owner, index, token, at, choices, bank))
        self._numbers.append(numbers)

    @property
    def quantities(self) -> frozenset[str]:
        """The quantities to read from the model's answers."""
        if self.reduction == "kl":
            return frozenset({"kl"})
        named = "logprobs" if self.answers[0].needs_logprobs else "logits"
        return frozenset({named, "top"}) if self._counts_tops else frozenset({named})

    @property
    def _counts_tops(self) -> bool:
        return self.reduction == "accuracy" and not self.answers[0].foil_ids

    def by_prompt(self, mask_tree: MaskTree, masks: Masks) -> Floats:
        """Each prompt's value under each mask, float64 `(m, prompts)`; an accuracy is 0 or 1."""
        for group in self.groups:
            if self.reduction == "kl" and group.intact is None:
                mask_tree.remember_intact(group)
        count = sum(len(numbers) for numbers in self._numbers)
        scores = {name: np.full((len(masks), count), np.nan) for name in self.quantities}
        picks = drawn(masks)
        for group, numbers in zip(self.groups, self._numbers, strict=True):
            for name, found in mask_tree.read(group, masks, picks, self.quantities).items():
                scores[name][:, numbers] = found
        return np.stack([self._value(answer, {name: found[:, reads] for name, found in scores.items()}) for answer, reads in self._prompts()], axis=1)

    def elsewhere(self) -> "Reading":
        """The same reading for another model of the same architecture; divergences stay relative to the answers of this one's model once it has been evaluated."""
        other = copy(self)
        other.groups = [replace(group, entry=None) for group in self.groups]
        return other

    def graded(self) -> "Reading":
        """The same reading with margins or log-probabilities in place of an accuracy, so that the value is continuous."""
        other = copy(self)
        other.reduction = "mean" if self.reduction == "accuracy" else self.reduction
        return other

    def _prompts(self) -> list[tuple[Answers, slice]]:
        return list(zip(self.answers, self._reads, strict=True))

    def _value(self, answer: Answers, scores: dict[str, Floats]) -> Values:
        if self.reduction == "kl":
            return scores["kl"][:, 0]
        if self._counts_tops:
            return scores["top"].min(axis=1)
        value = answer.values(_scores(scores))
        return (value > 0).astype(np.float64) if self.reduction == "accuracy" else value

    # ---- as a function that can be differentiated

    def weights(self) -> Floats:
        """The weights of the readouts in the value, float64 `(reads,)`: of logits or log-probabilities, or of the margin for an accuracy."""
        weights = np.zeros(self._reads[-1].stop)
        for answer, reads in self._prompts():
            width = reads.stop - reads.start
            ones = np.eye(width)  # a value is linear in its scores
            weights[reads] = answer.values(_scores({"logits": ones, "logprobs": ones})) / len(self.answers)
        return weights

    def numbered(self) -> list[tuple[Group, Integers]]:
        """The groups, each with the numbers of its readouts among all."""
        return list(zip(self.groups, self._numbers, strict=True))

    # ---- what the intact model does

    def warnings(self, mask_tree: MaskTree, task: str | None) -> tuple[str, ...]:
        """Warnings shown before the budget is spent, if the intact model does not do the task."""
        if len(self.answers) < 2 or self.reduction == "kl":
            return ()
        intact = self.by_prompt(mask_tree, np.ones((1, len(mask_tree.ablation.parts)), dtype=np.bool_))[0]
        if not self.answers[0].foil_ids:
            worst = self.reduction == "accuracy" and not intact.any()
            named = f"task {task}" if task else "these prompts"
            return (f"the intact model gives none of the targets of {named}, so there is nothing to explain",) if worst else ()
        from scipy.stats import binomtest

        right = int((intact > 0).sum())
        guessed: Any = binomtest(right, len(intact), 0.5, alternative="greater")
        # With very few prompts, even a perfect score is not significantly better than chance, so there is no warning.
        if guessed.pvalue <= RISK or right == len(intact):
            return ()
        prompts = f"{len(intact)} prompts of task {task}" if task else f"these {len(intact)} prompts"
        return (f"the intact model prefers target to foil in {right} of {prompts}, no better than chance, so effects on it mean little",)


def _scores(found: dict[str, Floats]) -> Scores:
    """Logits and log-probabilities, those not read NaN."""
    nothing = np.full(next(iter(found.values())).size, np.nan)
    return Scores(*(found[name].reshape(-1) if name in found else nothing for name in ("logits", "logprobs")), tokens=0)


def drawn(masks: Masks) -> Integers:
    """A pseudo-random number for each mask (int64 `(m,)`), a function of the mask alone, that chooses whose activations it draws."""
    import hashlib

    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=4).digest(), "big") for row in pack(masks)], np.int64)
