"""What a model's own gradients and attentions say of a prompt's components: quick, approximate, and nothing that an answer rests on.

The zero vector stands for a removed token, and only the components' tokens move: the fixed text stays. So integrated gradients add up to what removing
every component with ablation `zero` costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysp.errors import EvaluationError
from raysp.game import Attributions
from raysp.models.attention import rollout
from raysp.models.gradients import GradientInputs, along
from raysp.models.inputs import Floats, Integers
from raysp.models.memory import is_out_of_memory
from raysp.models.resident import REFUSALS, TOLERANCE
from raysp.spectral.fourier import FourierSurrogate

if TYPE_CHECKING:
    from raysp.lenses.feature import FeatureGame

# Steps of the way from zero vectors, and more where these leave more than so much of the components' effects out.
STEPS = (32, 128)
MISSING = 0.05
# Normalisation makes any vector that is not quite zero a whole one: what happens on the way happens at its very beginning, so steps are dense there.
POWER = 4
NO_TOKENS = "this tokenizer does not say which characters a token covers"


class UnavailableError(Exception):
    """What was asked for cannot be had of this model; the message says why."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """The value with nothing removed; of each component gradient x input and integrated gradients, float64 `(n,)`; what the latter lack to add up."""

    intact: float
    at_input: Floats
    integrated: Floats
    missing: float

    @property
    def adds_up(self) -> bool:
        """Whether integrated gradients add up to what zero vectors cost, or nearly so."""
        return bool(abs(self.missing) <= MISSING * np.abs(self.integrated).sum())


def attributions(game: FeatureGame) -> Attributions:
    """gradient_x_input, integrated_gradients and attention_rollout (how much, not which way), as far as the model has them; notes on the others."""
    found, notes = Attributions(), list[str]()
    found.unsigned = frozenset({"attention_rollout"})
    try:
        gradients = _remembered(game)
        found |= {"gradient_x_input": gradients.at_input, "integrated_gradients": gradients.integrated}
        if not gradients.adds_up:
            notes.append(f"integrated gradients are rough: they lack {gradients.missing:+.3g} to add up to what zero vectors cost")
    except (UnavailableError, EvaluationError) as error:
        notes.append(f"gradients are left out: {error}")
    try:
        found["attention_rollout"] = attention(game)
    except (UnavailableError, EvaluationError) as error:
        notes.append(f"attention rollout is left out: {error}")
    found.notes = tuple(notes)
    return found


def estimate(game: FeatureGame) -> FourierSurrogate | None:
    """v(all without R) = v(all) - the integrated gradients of R; None where there are none. EvaluationError when memory does not hold them."""
    try:
        gradients = _remembered(game)
    except UnavailableError:
        return None
    return FourierSurrogate.from_deviations(game.n, gradients.intact, {(i,): float(effect) for i, effect in enumerate(gradients.integrated)})


def _remembered(game: FeatureGame) -> Gradients:
    if game.gradients is None:
        game.gradients = game_gradients(game)
    return game.gradients


def game_gradients(game: FeatureGame, steps: Sequence[int] = STEPS, budget: int | None = None) -> Gradients:
    """Gradients of the game's own value; integrated ones along the way from zero vectors (Sundararajan et al. 2017), in more steps while they do not add up.

    UnavailableError where tokens cannot be told apart, or the model reads vectors otherwise than tokens. EvaluationError when memory does not hold them.
    """
    ids, owner = _owners(game)
    inputs = game.answers.inputs([(ids, np.arange(len(ids)), len(ids))])
    reading = GradientInputs(inputs, game.answers.weights, owner >= 0, game.answers.needs_logprobs)
    (empty, through), (_, slopes) = _along(game, reading, np.array([0.0, 1.0]), budget)
    plain = game.model.score(inputs, "alone")
    intact = float(game.answers.values(plain)[0])
    if not abs(through - intact) <= TOLERANCE[game.model.loaded.dtype] * (1 + np.abs(plain.logits).max()):
        raise UnavailableError(f"given vectors in the place of tokens, this model computes another value ({through:.4g}, not {intact:.4g})")
    integrated = _by_component(_integral(game, reading, steps[0], budget), owner, game.n)
    found = Gradients(intact, _by_component(slopes, owner, game.n), integrated, through - empty - float(integrated.sum()))
    return found if found.adds_up or len(steps) == 1 else game_gradients(game, steps[1:], budget)


def _integral(game: FeatureGame, reading: GradientInputs, steps: int, budget: int | None) -> Floats:
    """The integral of the slopes over the scales from 0 to 1, by midpoints in t where the scale is t^POWER: float64 `(k,)`."""
    middle = (np.arange(steps) + 0.5) / steps
    _, slopes = _along(game, reading, middle**POWER, budget)
    weights = middle ** (POWER - 1)
    return (weights / weights.sum()) @ slopes


def _along(game: FeatureGame, reading: GradientInputs, scales: Floats, budget: int | None) -> tuple[Floats, Floats]:
    try:
        return along(game.model, reading, scales, budget)
    except EvaluationError:
        raise
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise UnavailableError(f"this architecture refuses vectors in the place of tokens ({type(error).__name__})") from None


def attention(game: FeatureGame) -> Floats:
    """Attention rollout to the position that predicts the answer's first token, added up over each component's tokens. UnavailableError where there is none."""
    ids, owner = _owners(game)
    reach = rollout(game.model, ids)
    if reach is None:
        raise UnavailableError("this model shows no attentions")
    return _by_component(reach, owner, game.n)


def _owners(game: FeatureGame) -> tuple[Integers, Integers]:
    if not game.model.loaded.tokenizer.is_fast:
        raise UnavailableError(NO_TOKENS)
    ids, owner = game.parts.source.owners()
    read = game.answers.before_answer((ids, np.arange(len(ids)), len(ids)))[0]
    # Where nothing is left in front of the answer, one fixed token stands there.
    return read, owner[: len(read)] if len(ids) > len(game.answers.merged) else np.full(1, -1, np.int64)


def _by_component(tokens: Floats, owner: Integers, n: int) -> Floats:
    owned = owner >= 0
    return np.bincount(owner[owned], weights=tokens[owned], minlength=n).astype(np.float64)
