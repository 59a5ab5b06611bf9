"""What replaces an ablated part: zero, a constant, or the activation of the same part on other prompts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from raysp.errors import UserError
from raysp.models.ablation import Bank, Slot
from raysp.models.inputs import Integers
from raysp.models.mask_tree import MaskTree
from raysp.specs.lenses import MechanisticAblation

#: Maximum number of other prompts from which one is drawn for each mask.
MOST_DRAWN = 32
#: Number of prompts recorded at once.
RECORDED = 16


@dataclass(slots=True)
class Replacements:
    """The replacements of each prompt's parts. `contexts` are the prompts' token ids, `others` those that each may take its activations from (int64 each)."""

    kind: MechanisticAblation
    constant: float | None
    mask_tree: MaskTree
    contexts: Sequence[Integers]
    others: Sequence[Sequence[Integers]]
    _mean: Bank | None = field(init=False, repr=False, default=None)

    @property
    def name(self) -> str | None:
        """A hash of the other prompts; None where there are none."""
        if self.kind not in ("mean", "resample", "patch"):
            return None
        return hashlib.sha256(b"|".join(ids.tobytes() for each in self.others for ids in each)).hexdigest()

    def of(self, prompts: Sequence[int], inputs: Sequence[Integers]) -> tuple[Bank | None, list[Integers]]:
        """The replacements of inputs of one length (each a prompt with a forced answer behind it), and which of them each may take, one int64 array an input."""
        alone = [np.zeros(1, np.int64)] * len(inputs)
        if self.kind in ("zero", "zero-rescale"):
            return None, alone
        slots = self.mask_tree.ablation.slots
        if self.kind == "clamp":
            assert self.constant is not None
            return Bank(dict.fromkeys(slots, torch.full((1, 1, 1), self.constant))), alone
        if self.kind == "mean":
            self._mean = self._mean or Bank(mean_activations(self.mask_tree, self.others[0]))
            return self._mean, alone
        return self._recorded(prompts, inputs)

    def _recorded(self, prompts: Sequence[int], inputs: Sequence[Integers]) -> tuple[Bank, list[Integers]]:
        known: dict[bytes, int] = {}
        rows: list[Integers] = []
        choices: list[Integers] = []
        for prompt, ids in zip(prompts, inputs, strict=True):
            mine: list[int] = []
            for other in self._suitable(prompt):
                row = np.concatenate([other, ids[len(self.contexts[prompt]) :]])
                if (name := row.tobytes()) not in known:
                    known[name] = len(rows)
                    rows.append(row)
                mine.append(known[name])
            choices.append(np.array(mine, np.int64))
        kept: dict[Slot, list[Tensor]] = {}
        for start in range(0, len(rows), RECORDED):
            for slot, tensor in self.mask_tree.recorded(torch.from_numpy(np.stack(rows[start : start + RECORDED])).to(self.mask_tree.blockwise.device)):
                kept.setdefault(slot, []).append(tensor)
        return Bank({slot: torch.cat(tensors) for slot, tensors in kept.items()}), choices

    def _suitable(self, prompt: int) -> list[Integers]:
        """Other prompts that a prompt can take activations from, position by position: they have as many tokens. Raises UserError if there is none."""
        mine = self.contexts[prompt]
        others = self.others[prompt] if self.kind == "patch" else self.others[0]
        fitting = [ids for ids in others if len(ids) == len(mine) and not np.array_equal(ids, mine)]
        if not fitting:
            raise self._unsuitable(prompt, sorted({len(ids) for ids in others if not np.array_equal(ids, mine)}))
        return fitting[:MOST_DRAWN] if self.kind == "resample" else fitting[:1]

    def _unsuitable(self, prompt: int, lengths: Sequence[int]) -> UserError:
        of = f"prompt {prompt + 1}" if len(self.contexts) > 1 else "the prompt"
        tokens = f"{len(self.contexts[prompt])} tokens as {of} has"
        if self.kind == "patch":
            problem = f"needs {tokens}, and has {_listed(lengths)}" if lengths else f"is {of} itself"
            return UserError("counterfactual", None, problem, "give one of the same length")
        problem = f"need {tokens}, and have {_listed(lengths)}" if lengths else f"contain only {of} itself"
        return UserError("references", None, problem, "give some of the same length, or use mean")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (", …" if len(numbers) > 6 else "")


def mean_activations(mask_tree: MaskTree, prompts: Sequence[Integers]) -> dict[Slot, Tensor]:
    """The mean of each tensor over all positions of these prompts (int64 each), `(1, 1, channels)` in the model's dtype."""
    lengths: dict[int, list[Integers]] = {}
    for ids in prompts:
        lengths.setdefault(len(ids), []).append(ids)
    sums: dict[Slot, Tensor] = {}
    count = 0
    for same in lengths.values():
        for start in range(0, len(same), RECORDED):
            some = torch.from_numpy(np.stack(same[start : start + RECORDED])).to(mask_tree.blockwise.device)
            count += some.numel()
            for slot, tensor in mask_tree.recorded(some):
                summed = tensor.cpu().double().sum(dim=(0, 1))
                sums[slot] = sums[slot] + summed if slot in sums else summed
    return {slot: (summed / count).to(mask_tree.blockwise.dtype)[None, None] for slot, summed in sums.items()}
