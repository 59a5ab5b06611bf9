"""Write the model that is left when parts are removed, load it again, and check that its value is the one that the ablation measured. Needs its weights in this process."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.actions.pruning_methods import Pruned
from raysp.errors import DoesNotFitError, EvaluationError, UserError
from raysp.specs.lenses import MechanisticLens, with_model

if TYPE_CHECKING:
    from raysp.lenses.mechanistic import MechanisticGame


def check_folder(folder: Path) -> None:
    """UserError unless a model can be written to this folder, which must be new or empty."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError("output", str(folder), "exists and is not empty", "name a new folder")
        above = next(parent for parent in folder.absolute().parents if parent.exists())
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise _unwritable(folder)


def _unwritable(folder: Path, error: OSError | None = None) -> UserError:
    why = "" if error is None else f" ({error.strerror or error})"
    return UserError("output", str(folder), f"cannot be written{why}", "name a folder that you may write to, with enough space for the model")


def check_weights(game: MechanisticGame, folder: Path) -> None:
    """UserError for parts whose weights cannot be identified, and for weights that are not in memory."""
    if any(weight.is_meta for weight in game.model.loaded.model.parameters()):
        remedy = "use a machine with more memory, or device cpu"
        raise UserError("output", str(folder), "cannot be written: accelerate has moved some of this model's weights out of memory", remedy)
    for part, component in zip(game.mask_tree.ablation.parts, game.components, strict=True):
        block = game.mask_tree.blockwise.architecture.blocks[part.layer]
        if part.site == "block" and (block.attention is None or block.mlp is None):
            problem = f"cannot be written without {component.label}: the output weights of this block were not found (a mixture of experts?)"
            raise UserError("output", str(folder), problem, "omit output, or run again on heads")


def write_pruned(lens: MechanisticLens, game: MechanisticGame, chosen: Pruned, folder: Path) -> dict[str, Any]:
    """Write the model, load it again and check that its value equals the ablation's. No file is left behind if it does not."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".raysp-") as draft:
            place = Path(draft) / "model"
            told = _draft(lens, game, chosen, place)
            if folder.exists():
                folder.rmdir()
            place.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return told | {"folder": str(folder)}


def _draft(lens: MechanisticLens, game: MechanisticGame, chosen: Pruned, place: Path) -> dict[str, Any]:
    """Write the model and its description; EvaluationError if the written model's value differs from the measured one."""
    from raysp.models.resident import TOLERANCE
    from raysp.models.weight_pruning import write_without

    gone = [game.mask_tree.ablation.parts[i] for i in np.flatnonzero(~chosen.mask).tolist()]
    with game.model.lock:
        write_without(game.model.loaded, game.mask_tree.blockwise.architecture, gone, place, rescale=lens.ablation == "zero-rescale")
    expected = float(game.reading.graded().by_prompt(game.mask_tree, chosen.mask[None]).mean())
    value, graded, dtype = _values_of(with_model(lens, str(place.absolute())), game)
    allowed = max(TOLERANCE[dtype], TOLERANCE[game.model.loaded.dtype])
    if abs(graded - expected) > allowed * (1 + abs(expected)):
        raise EvaluationError(f"the written model's value is {graded:.4g}, but {expected:.4g} was measured: removing weights does not ablate this architecture")
    told = {
        "value": value,
        "keep": chosen.keep,
        "removed": [game.components[i].label for i in np.flatnonzero(~chosen.mask)],
        "ablation": lens.ablation,
        "heldout": chosen.heldout,
        "model": lens.model,
        "dtype": game.info.description["dtype"],
    }
    (place / "pruning.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return told


def _values_of(options: MechanisticLens, game: MechanisticGame) -> tuple[float, float, Any]:
    """As `_values_on`, on the lens's device, or on the CPU if a second model does not fit there. EvaluationError if it fits on neither."""
    from raysp.models.memory import is_out_of_memory, release

    for device in (options.device, "cpu"):
        try:
            return _values_on(options.model_copy(update={"device": device}), game)
        except (RuntimeError, MemoryError, DoesNotFitError) as error:
            if not is_out_of_memory(error):
                raise
        release(game.model.loaded.device)
    raise EvaluationError("the written model cannot be checked: it does not fit into memory beside the original model")


def _values_on(options: MechanisticLens, game: MechanisticGame) -> tuple[float, float, Any]:
    """The value of a model on disk on a game's prompts, the same value with `Reading.graded`, and the dtype in which the model ran.

    Answers and reference distributions are those of the game's model.
    """
    from raysp.models.ablation import Ablation
    from raysp.models.architecture import read_architecture
    from raysp.models.blockwise import BlockwiseModel
    from raysp.models.loading import load
    from raysp.models.mask_tree import MaskTree

    loaded = load(options)  # used once, so not kept resident
    architecture = read_architecture(loaded.model, options.model)
    intact = MaskTree(BlockwiseModel(loaded.model, architecture, loaded.device), Ablation(architecture, game.mask_tree.ablation.parts), game.mask_tree.budget)
    reading = game.reading.elsewhere()
    reading.groups = [replace(group, ids=group.ids.to(loaded.device)) for group in reading.groups]
    value, graded = (float(each.by_prompt(intact, np.ones((1, game.n), dtype=np.bool_)).mean()) for each in (reading, reading.graded()))
    return value, graded, loaded.dtype
