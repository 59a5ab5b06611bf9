"""The ordinary way to train an adapter: PEFT, torch's AdamW, the whole model on padded batches, one subset after another.

The fast path is tested against it, and architectures that the fast path does not support are trained with it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysp.models.architecture import read_architecture
from raysp.models.frozen_prefix import Text
from raysp.models.inputs import Floats, Integers
from raysp.models.lora import Recipe, Stack, configuration, sites
from raysp.models.training import DivergenceError, batches

IGNORED = -100


@dataclass(slots=True, weakref_slot=True, eq=False)
class PlainTrainer:
    """A model, a recipe, the training texts, the texts (`evaluated`) to evaluate trained adapters on, and why it is used.

    PEFT changes modules, so these are copied; weights are shared.
    """

    model: Any
    device: torch.device
    recipe: Recipe
    texts: Sequence[Text]
    evaluated: Sequence[Text]
    reason: str = "as was asked for"
    tokens: int = field(init=False, default=0)
    losses: list[float] = field(init=False, default_factory=list)
    _peft: Any = field(init=False, repr=False)
    _sites: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from peft import get_peft_model

        own = copy.deepcopy(self.model, {id(tensor): tensor for tensor in (*self.model.parameters(), *self.model.buffers())})
        self._sites = sites(own, read_architecture(own, "the model"), self.recipe)
        settings = configuration(self._sites, self.recipe)
        settings.inference_mode = False
        self._peft = get_peft_model(own, settings)
        self._peft.eval()  # no dropout: evaluation and training are one computation

    @property
    def way(self) -> str:
        """How it trains and why, for notes."""
        return f"adapters trained one by one: {self.reason}"

    @property
    def stacked(self) -> int:
        """Number of subsets trained at once."""
        return 1

    def evaluate(self, subsets: Sequence[Integers], seeds: Sequence[int]) -> Floats:
        """Train on the texts with these numbers; result, float64 `(subsets, evaluated, 2)`, and errors as those of the fast path's `Trainer.evaluate`."""
        found = np.empty((len(subsets), len(self.evaluated), 2))
        for row, (subset, seed) in enumerate(zip(subsets, seeds, strict=True)):
            self._train(np.asarray(subset, np.int64), seed, row)
            found[row] = [self._score(text) for text in self.evaluated]
        return found

    def _train(self, subset: Integers, seed: int, row: int) -> None:
        from transformers import get_scheduler

        self._start(seed)
        trained = [parameter for parameter in self._peft.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay)
        plan = batches(subset, self.recipe, seed, len(self.texts))
        names = {"constant": "constant_with_warmup"}
        warm = int(np.ceil(self.recipe.warmup * len(plan)))
        schedule = get_scheduler(names.get(self.recipe.schedule, self.recipe.schedule), optimiser, num_warmup_steps=warm, num_training_steps=len(plan))
        self.losses = []
        for numbers in plan:
            loss = self._loss([self.texts[number] for number in numbers])
            loss.backward()
            optimiser.step()
            schedule.step()  # pyright: ignore[reportCallIssue]  torch's signature in it is that of another scheduler
            optimiser.zero_grad()
            self.losses.append(float(loss.detach()))
            largest = float(torch.stack([parameter.detach().abs().max() for parameter in trained]).max())
            if error := DivergenceError.of(row, len(self.losses), self.losses[-1], largest):
                raise error

    def _start(self, seed: int) -> None:
        """Reset the adapter to the common start of all trainings with this seed."""
        begun = Stack.start(self._sites, self.recipe, [seed])
        modules = dict(self._peft.base_model.model.named_modules())
        with torch.no_grad():
            for site, down, up in zip(begun.sites, begun.down, begun.up, strict=True):
                modules[site.name].lora_A["default"].weight.copy_(down[0])
                modules[site.name].lora_B["default"].weight.copy_(up[0])

    def _loss(self, texts: Sequence[Text]) -> Tensor:
        longest = max(len(text.ids) for text in texts)
        ids, labels = np.zeros((len(texts), longest), np.int64), np.full((len(texts), longest), IGNORED)
        seen = np.zeros((len(texts), longest), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)], seen[row, : len(text.ids)] = text.ids, 1
            labels[row, text.first : len(text.ids)] = text.ids[text.first :]
        self.tokens += ids.size
        given, mask, wanted = (torch.from_numpy(array).to(self.device) for array in (ids, seen, labels))
        return self._peft(input_ids=given, attention_mask=mask, labels=wanted, use_cache=False).loss

    def _score(self, text: Text) -> tuple[float, int]:
        ids = torch.from_numpy(text.ids).to(self.device)
        with torch.no_grad():
            logits = self._peft(input_ids=ids[None], use_cache=False).logits[0, text.first - 1 : -1]
        self.tokens += len(text.ids)
        logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        return float(logprobs.gather(1, ids[text.first :, None]).cpu().double().sum()), len(text.ids) - text.first
