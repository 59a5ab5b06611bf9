"""Attribution of a prompt's components by a model's gradients and attentions: quick and approximate.

By attention gates, a component is removed as everything else stops attending to its tokens (see `models.attention_gates`). In gradient x input and integrated
gradients, a removed token is the zero vector. Only the components' tokens are varied; the fixed text stays. Integrated gradients therefore add up to the effect
of removing all components with ablation `zero`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError
from raysp.gradients import GradientReport
from raysp.lenses.answers import Answers
from raysp.lenses.contexts import TextContexts, TokenContexts
from raysp.models.attention import rollout
from raysp.models.attention_gates import Gates, gate_slopes
from raysp.models.gradients import GradientInputs, along
from raysp.models.inputs import Floats, Inputs, Integers
from raysp.models.memory import is_out_of_memory
from raysp.models.resident import REFUSALS, TOLERANCE, ResidentModel

#: Steps of the path from zero vectors; the larger number if, with the smaller, more than a share `MISSING` of the components' effects is unaccounted for.
STEPS = (32, 128)
MISSING = 0.05
#: Normalisation layers blow up any vector that is not quite zero, so most of the change happens at the very beginning of the path: steps are dense there.
POWER = 4
#: The method that fits start from, and that ranks components best (see the benchmarks).
GATES = "attention_gates"
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

    def read(self) -> tuple[Inputs, Integers, Integers]:
        """The whole prompt with its answers; and the tokens before these, with the component that each belongs to (-1: none), int64 `(k,)` each.

        UnavailableError if the tokenizer does not report it.
        """
        if not self.model.loaded.tokenizer.is_fast:
            raise UnavailableError(NO_TOKENS)
        ids, owner = self.source.owners()
        whole = (ids, np.arange(len(ids)), len(ids))
        # An answer's first token may cover the prompt's last ones, such as a space.
        before = self.answers.before_answer(whole)[0]
        nothing_left = len(self.answers.merged) == len(ids)
        return self.answers.inputs([whole]), before, np.full(1, -1) if nothing_left else owner[: len(before)]


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


def gradient_report(prompt: AnsweredPrompt, *, priors_only: bool = False) -> GradientReport:
    """attention_gates, gradient_x_input, integrated_gradients and attention_rollout (unsigned), as far as the model supports them.

    With `priors_only` only the first, which takes a single pass. Notes explain what is missing.
    """
    effects, notes = dict[str, Floats](), list[str]()
    intact: float | None = None
    try:
        gates = AttentionGates.of(prompt)
        intact, effects[GATES] = gates.intact, gates.slopes[None]
    except (UnavailableError, EvaluationError) as error:
        notes.append(f"attention gates are left out: {error}")
    priors = tuple(effects)
    if priors_only:
        return GradientReport(effects, leading=next(iter(effects), None), intact=intact, priors=priors, max_order=0, notes=tuple(notes))
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
    leading = None if intact is None else GATES if priors else "integrated_gradients"
    return GradientReport(effects, frozenset({"attention_rollout"} & effects.keys()), leading, intact, priors, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class AttentionGates:
    """The attention gates of a prompt's components. With all of them open, the value is `intact` and its derivatives in them `slopes`, float64 `(n,)`.

    `inputs` are the prompt with its answers, `owner` int64 `(k,)` the component of each token before these, and `causal` is as in `Gates`.
    """

    prompt: AnsweredPrompt
    inputs: Inputs
    owner: Integers
    causal: bool
    intact: float
    slopes: Floats

    @classmethod
    def of(cls, prompt: AnsweredPrompt) -> AttentionGates:
        """The gates of a prompt.

        UnavailableError if tokens cannot be told apart, or the model computes another value with an explicit attention mask. EvaluationError if memory does not
        suffice.
        """
        inputs, _, owner = prompt.read()
        intact, near = _plain(prompt, inputs)
        for causal in (True, False):
            found = _through(prompt, inputs, Gates(owner, np.zeros(len(owner), np.bool_), causal))
            if found is not None and abs(found[0] - intact) <= near:
                return cls(prompt, inputs, owner, causal, intact, _by_component(found[1], owner, prompt.n))
        raise UnavailableError("this architecture does not accept a mask of which token attends to which")

    def at(self, mask: NDArray[np.bool_]) -> Floats:
        """The derivatives, float64 `(n,)`, with the gates of the components closed that a mask (bool `(n,)`) removes; theirs are 0. EvaluationError as `of`."""
        if mask.all():
            return self.slopes
        # Tokens without a gate are those of an extra component, which is kept.
        found = _through(self.prompt, self.inputs, Gates(self.owner, ~np.append(mask, True)[self.owner], self.causal))
        assert found is not None
        return _by_component(found[1], self.owner, self.prompt.n)


def _through(prompt: AnsweredPrompt, inputs: Inputs, gates: Gates) -> tuple[float, Floats] | None:
    return gate_slopes(prompt.model, inputs, prompt.answers.weights, gates, logprobs=prompt.answers.needs_logprobs)


def _plain(prompt: AnsweredPrompt, inputs: Inputs) -> tuple[float, float]:
    """The value of one context as it is usually computed, and how far other ways to compute it may be from it."""
    plain = prompt.model.score(inputs, "alone")
    return float(prompt.answers.values(plain)[0]), float(TOLERANCE[prompt.model.loaded.dtype] * (1 + np.abs(plain.logits).max()))


def input_gradients(prompt: AnsweredPrompt, steps: Sequence[int] = STEPS, budget: int | None = None) -> InputGradients:
    """Gradients of the value; integrated ones along the path from zero vectors (Sundararajan et al. 2017), with more steps as long as they do not add up.

    UnavailableError if tokens cannot be told apart, or the model computes another value from vectors than from tokens. EvaluationError if memory does not
    suffice.
    """
    inputs, _, owner = prompt.read()
    reading = GradientInputs(inputs, prompt.answers.weights, owner >= 0, prompt.answers.needs_logprobs)
    (empty, through), (_, slopes) = _along(prompt, reading, np.array([0.0, 1.0]), budget)
    intact, near = _plain(prompt, inputs)
    if not abs(through - intact) <= near:
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
    _, ids, owner = prompt.read()
    reach = rollout(prompt.model, ids)
    if reach is None:
        raise UnavailableError("this model does not report attentions")
    return _by_component(reach, owner, prompt.n)


def _by_component(tokens: Floats, owner: Integers, n: int) -> Floats:
    owned = owner >= 0
    return np.bincount(owner[owned], weights=tokens[owned], minlength=n).astype(np.float64)
