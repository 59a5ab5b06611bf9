"""Attribution of a prompt's components by a model's gradients and attentions: quick and approximate.

A removed token is represented by the zero vector, and only the components' tokens are varied; the fixed text stays. Integrated gradients therefore add up
to the effect of removing all components with ablation `zero`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.errors import EvaluationError
from raysp.gradients import GradientReport
from raysp.lenses.answers import Answers
from raysp.lenses.contexts import TextContexts, TokenContexts
from raysp.models.attention import rollout
from raysp.models.gradients import GradientInputs, along
from raysp.models.inputs import Floats, Integers
from raysp.models.memory import is_out_of_memory
from raysp.models.resident import REFUSALS, TOLERANCE, ResidentModel

#: Steps of the path from zero vectors; the larger number if, with the smaller, more than a share `MISSING` of the components' effects is unaccounted for.
STEPS = (32, 128)
MISSING = 0.05
#: Normalisation layers blow up any vector that is not quite zero, so most of the change happens at the very beginning of the path: steps are dense there.
POWER = 4
NO_TOKENS = "this tokenizer does not report which characters a token covers"


class UnavailableError(Exception):
    """The model does not support the requested method; the message says why."""


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt of `n` components on a model, and the answer that its value is about."""

    model: ResidentModel
    source: TextContexts | TokenContexts
    answers: Answers
    n: int

    def owners(self) -> tuple[Integers, Integers]:
        """The tokens of the whole prompt, and the component that each belongs to (-1: none). UnavailableError if the tokenizer does not report it."""
        if not self.model.loaded.tokenizer.is_fast:
            raise UnavailableError(NO_TOKENS)
        return self.source.owners()


@dataclass(frozen=True, slots=True)
class InputGradients:
    """The value with nothing removed; gradient x input and integrated gradients of each component, float64 `(n,)`; and the residual of the latter's sum."""

    intact: float
    at_input: Floats
    integrated: Floats
    missing: float

    @property
    def adds_up(self) -> bool:
        """Whether integrated gradients approximately add up to the effect of zeroing every component."""
        return bool(abs(self.missing) <= MISSING * np.abs(self.integrated).sum())


def gradient_report(prompt: AnsweredPrompt) -> GradientReport:
    """gradient_x_input, integrated_gradients and attention_rollout (unsigned), as far as the model supports them; notes explain what is missing."""
    effects, notes = dict[str, Floats](), list[str]()
    intact: float | None = None
    try:
        gradients = input_gradients(prompt)
        intact = gradients.intact
        effects |= {"gradient_x_input": gradients.at_input[None], "integrated_gradients": gradients.integrated[None]}
        if not gradients.adds_up:
            notes.append(f"integrated gradients are rough: they are {gradients.missing:+.3g} short of the effect of zeroing every component")
    except (UnavailableError, EvaluationError) as error:
        notes.append(f"gradients are left out: {error}")
    try:
        effects["attention_rollout"] = attention(prompt)[None]
    except (UnavailableError, EvaluationError) as error:
        notes.append(f"attention rollout is left out: {error}")
    leading = None if intact is None else "integrated_gradients"
    return GradientReport(effects, frozenset({"attention_rollout"} & effects.keys()), leading, intact, notes=tuple(notes))


def input_gradients(prompt: AnsweredPrompt, steps: Sequence[int] = STEPS, budget: int | None = None) -> InputGradients:
    """Gradients of the value; integrated ones along the path from zero vectors (Sundararajan et al. 2017), with more steps as long as they do not add up.

    UnavailableError if tokens cannot be told apart, or the model computes another value from vectors than from tokens. EvaluationError if memory does not
    suffice.
    """
    ids, owner = prompt.owners()
    inputs = prompt.answers.inputs([(ids, np.arange(len(ids)), len(ids))])
    reading = GradientInputs(inputs, prompt.answers.weights, owner >= 0, prompt.answers.needs_logprobs)
    (empty, through), (_, slopes) = _along(prompt, reading, np.array([0.0, 1.0]), budget)
    plain = prompt.model.score(inputs, "alone")
    intact = float(prompt.answers.values(plain)[0])
    if not abs(through - intact) <= TOLERANCE[prompt.model.loaded.dtype] * (1 + np.abs(plain.logits).max()):
        raise UnavailableError(f"given vectors instead of tokens, this model computes another value ({through:.4g}, not {intact:.4g})")
    integrated = _by_component(_integral(prompt, reading, steps[0], budget), owner, prompt.n)
    found = InputGradients(intact, _by_component(slopes, owner, prompt.n), integrated, through - empty - float(integrated.sum()))
    return found if found.adds_up or len(steps) == 1 else input_gradients(prompt, steps[1:], budget)


def _integral(prompt: AnsweredPrompt, reading: GradientInputs, steps: int, budget: int | None) -> Floats:
    """The integral of the slopes over the scales from 0 to 1, by midpoints in t with scale t^POWER: float64 `(k,)`."""
    middle = (np.arange(steps) + 0.5) / steps
    _, slopes = _along(prompt, reading, middle**POWER, budget)
    weights = middle ** (POWER - 1)
    return (weights / weights.sum()) @ slopes


def _along(prompt: AnsweredPrompt, reading: GradientInputs, scales: Floats, budget: int | None) -> tuple[Floats, Floats]:
    try:
        return along(prompt.model, reading, scales, budget)
    except EvaluationError:
        raise
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise UnavailableError(f"this architecture does not accept vectors instead of tokens ({type(error).__name__})") from None


def attention(prompt: AnsweredPrompt) -> Floats:
    """Attention rollout to the position that predicts the answer's first token, summed over each component's tokens. UnavailableError if the model has none."""
    ids, owner = prompt.owners()
    reach = rollout(prompt.model, ids)
    if reach is None:
        raise UnavailableError("this model does not report attentions")
    return _by_component(reach, owner, prompt.n)


def _by_component(tokens: Floats, owner: Integers, n: int) -> Floats:
    owned = owner >= 0
    return np.bincount(owner[owned], weights=tokens[owned], minlength=n).astype(np.float64)
