"""Games of actions on finished runs: a run's question asked of prompts or queries that the run did not see, or with other training seeds."""

import time
from dataclasses import replace
from typing import Any

from raysp.datasets.held_out import held_out_error, held_out_prompts, held_out_queries, with_seed
from raysp.datasets.prompt_sets import questions
from raysp.datasets.tasks import Question
from raysp.errors import UserError
from raysp.game import Game, Measurement, Query, fingerprint
from raysp.lenses.data import DataGame, build_data_game
from raysp.lenses.mechanistic import MechanisticGame, build_mechanistic_game, tokens
from raysp.masks import Masks
from raysp.specs.held_out import HeldOutPromptsLens, RetrainingLens


class PromptGame(Game):
    """A mechanistic game whose outputs are the values on its individual prompts, so that they are stored with each mask."""

    def __init__(self, game: MechanisticGame) -> None:
        self.game = game
        prompts: list[dict[str, Any]] = game.info.description["prompts"]
        queries = tuple(Query(i, f"prompt {i + 1}", each["prompt"], str(each.get("target") or ""), each.get("foil")) for i, each in enumerate(prompts))
        described = {**game.info.description, "outputs": "prompts"}
        named = fingerprint({"of": game.info.fingerprint, "outputs": "prompts"})
        self.info = replace(game.info, fingerprint=named, description=described, queries=queries, slopes=False)

    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """As `Game.measure`."""
        self.check_slopes(slopes=slopes)
        began, before = time.perf_counter(), self.game.mask_tree.tokens
        outputs = self.game.by_prompt(masks)
        return Measurement(outputs.mean(axis=1), self.game.mask_tree.tokens - before, time.perf_counter() - began, outputs)


def build_held_out_prompts_game(lens: HeldOutPromptsLens) -> PromptGame:
    """The game on held-out prompts. UserError if there are too few, or if they do not suit the model and the kind of value."""
    count = tokens(lens)
    prompts = held_out_prompts(lens, lens.heldout, questions(lens, count), count)
    if lens.foiled is not None:
        _check_foils(prompts, foiled=lens.foiled)
    try:
        return PromptGame(build_mechanistic_game(lens, prompts))
    except UserError as error:
        raise error.about(f"heldout {error.field}") from None


def _check_foils(prompts: list[Question], *, foiled: bool) -> None:
    """UserError unless foils are given as in the run: a target ranked above its foil, or above the whole vocabulary, are two different accuracies."""
    if any((question.foil is not None) != foiled for question in prompts):
        problem, remedy = ("is missing in some prompts", "give every prompt a foil") if foiled else ("is given, but the run's prompts have none", "omit foils")
        raise UserError("heldout foil", None, problem, f"{remedy}, as in the run")


def build_retraining_game(lens: RetrainingLens) -> DataGame:
    """The game that trains once with the lens's seed. UserError as `build_data_game`, and for unsuitable held-out queries."""
    others = None if lens.heldout is None else held_out_queries(lens, lens.heldout)
    try:
        game = build_data_game(lens, others)
    except UserError as error:
        raise (error if others is None else held_out_error(error)) from None
    once = lens.model_copy(update={"training_seed": lens.seed, "seeds": 1, "seeding": "shared"})
    return replace(game, info=with_seed(game.info, lens.seed), lens=once)
