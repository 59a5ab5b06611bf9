"""Lenses: from the options of a question to the game that answers it."""

from raysp.game import Component, FunctionGame, Game, GameInfo, distinct_labels, fingerprint
from raysp.specs.held_out import HeldOutPromptsLens, RetrainingLens
from raysp.specs.lenses import DataLens, FeatureLens, FunctionLens, MechanisticLens


def build_game(lens: FeatureLens | MechanisticLens | DataLens | FunctionLens) -> Game:
    """The game that a lens describes, its model loaded in this process.

    Raises UserError for anything that the prompt, the components, the training set or the model cannot do.
    """
    match lens:
        case HeldOutPromptsLens():
            from raysp.lenses.held_out import build_held_out_prompts_game

            return build_held_out_prompts_game(lens)
        case RetrainingLens():
            from raysp.lenses.held_out import build_retraining_game

            return build_retraining_game(lens)
        case FeatureLens():
            from raysp.lenses.feature import build_feature_game

            return build_feature_game(lens)
        case MechanisticLens():
            from raysp.lenses.mechanistic import build_mechanistic_game

            return build_mechanistic_game(lens)
        case DataLens():
            from raysp.lenses.data import build_data_game

            return build_data_game(lens)
        case FunctionLens():
            return _function_game(lens)


def _function_game(lens: FunctionLens) -> Game:
    described = {"lens": "function", "n": lens.n, "name": lens.name or f"anonymous-{lens.anonymous}"}
    labels = distinct_labels(lens.labels or tuple(f"x{i}" for i in range(lens.n)))
    components = tuple(Component(i, label, "argument") for i, label in enumerate(labels))
    return FunctionGame(lens.function, GameInfo(fingerprint(described), components, described, batch_masks=lens.batch_masks))
