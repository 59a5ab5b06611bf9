"""Act on a mechanistic run: remove parts of the model, evaluate the result on held-out prompts, and write it as a model."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from raysp.actions.finished import finished_run
from raysp.actions.pruning_methods import SHARES, Pruned, PruningBudget, RunEvidence, compare_methods
from raysp.blobs import with_stored_blobs
from raysp.datasets.prompt_sets import questions, read_questions
from raysp.datasets.tasks import CountTokens, Question, make
from raysp.errors import DoesNotFitError, EvaluationError, UserError
from raysp.explorers.fitting import fit_singles
from raysp.explorers.samples import random_rows
from raysp.game import Game, Measurement, Query, fingerprint
from raysp.masks import Masks
from raysp.runs.continuation import check_same_game
from raysp.runs.stored_game import StoredGame
from raysp.sampling.ablations import single_ablations
from raysp.specs.lenses import COSTS, MechanisticLens, with_model
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.specs.run import RunSpec
from raysp.spectral.fourier import FourierSurrogate

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.lenses.mechanistic import MechanisticGame
    from raysp.store import Store

#: The distance between the seeds of a task's prompts and of its held-out prompts.
APART = 1_000_003
#: The default number of random subsets that compete with the chosen ones.
DRAWS = 64


@dataclass(frozen=True)
class Pruning:
    """The result of `prune`: every method at every share kept, and the description of the model written (None: none was)."""

    run_id: str
    rows: tuple[Pruned, ...]
    written: dict[str, Any] | None


@with_stored_blobs
def prune(
    store: "Store",
    run_id: str,
    keep: float,
    folder: Path | None,
    *,
    heldout: str | None,
    per_layer: bool,
    draws: int = DRAWS,
    consent: Consent = NO_CONSENT,
    watch: Callable[[str], None],
) -> Pruning:
    """Choose what to remove, compare methods at `keep` and the published shares, write the model to `folder`, and store the figures.

    UserError for an unsuitable run, share, folder or set of held-out prompts.
    """
    row = store.run_row(run_id)
    spec, lens = _checked(row, consent)
    _check_folder(folder)
    surrogate = store.surrogate(run_id)
    layers = tuple(component.layer or 0 for component in store.components(row["game_id"]))
    PruningBudget.of(keep, layers, per_layer=per_layer)  # raises before anything is loaded
    watch("loading the model")
    from raysp.lenses.mechanistic import build_mechanistic_game, tokens

    game = build_mechanistic_game(lens)
    check_same_game(row, game.info, "a model or prompts")
    if folder is not None:
        _check_weights(game, folder)
    unseen = _unseen(lens, game, _held_out(lens, heldout, questions(lens, tokens(lens)), tokens(lens)))
    watch("fitting what the run measured")
    train, heldout_values = (StoredGame(store, each, run_id, "prune") for each in (game, PromptGame(unseen)))
    known = known_of(store, row, surrogate, spec.seed, game)
    rows: list[Pruned] = []
    for share in _shares(keep, layers, per_layer):
        watch(f"comparing at {share:.0%} kept")
        rows += compare_methods(known, train.values, heldout_values.outputs, share, per_layer=per_layer, draws=draws)
    store.add_prunings(run_id, _table(rows))
    written = None
    if folder is not None:
        watch("writing the model")
        written = _write(lens, game, next(found for found in rows if found.keep == keep and found.method == "refined"), folder)
    return Pruning(run_id, tuple(rows), written)


def _checked(row: dict[str, Any], consent: Consent) -> tuple[RunSpec, MechanisticLens]:
    spec = finished_run(row, "prune", consent)
    lens = cast("MechanisticLens", spec.lens)
    if lens.ablation not in ("zero", "zero-rescale"):
        raise UserError("ablation", lens.ablation, "cannot be expressed in weights", "run again with ablation zero or zero-rescale")
    if lens.positions != "all":
        raise UserError("positions", lens.positions, "are only part of a prompt, but weights act on every position", "run again with positions all")
    return spec, lens


def _check_folder(folder: Path | None) -> None:
    if folder is None:
        return
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


def _check_weights(game: "MechanisticGame", folder: Path) -> None:
    """UserError for parts whose weights cannot be identified, and for weights that are not in memory."""
    if any(weight.is_meta for weight in game.model.loaded.model.parameters()):
        remedy = "use a machine with more memory, or device cpu"
        raise UserError("output", str(folder), "cannot be written: accelerate has moved some of this model's weights out of memory", remedy)
    for part, component in zip(game.mask_tree.ablation.parts, game.components, strict=True):
        block = game.mask_tree.blockwise.architecture.blocks[part.layer]
        if part.site == "block" and (block.attention is None or block.mlp is None):
            problem = f"cannot be written without {component.label}: the output weights of this block were not found (a mixture of experts?)"
            raise UserError("output", str(folder), problem, "omit output, or run again on heads")


def _shares(keep: float, layers: Sequence[int], per_layer: bool) -> list[float]:
    """The requested share and those published shares that remove different numbers of components, ascending."""
    found = {keep: PruningBudget.of(keep, layers, per_layer=per_layer)}
    for share in SHARES:
        try:
            room = PruningBudget.of(share, layers, per_layer=per_layer)
        except UserError:
            continue
        if room not in found.values():
            found[share] = room
    return sorted(found)


def _held_out(lens: MechanisticLens, source: str | None, seen: Sequence[Question], count_tokens: CountTokens) -> list[Question]:
    """Prompts that the run did not see; UserError if fewer than two are available."""
    prompts = {question.prompt for question in seen}
    if source is not None:
        # Default answers for the run's prompt file apply to the held-out file too; the answers to a single prompt do not.
        found = read_questions("heldout", source, *((lens.target, lens.foil) if lens.prompts is not None else ()))
    elif lens.task is not None:
        try:
            found = make(lens.task, lens.task_size, lens.task_seed + APART, count_tokens, excluding=prompts)
        except UserError:
            problem = f"cannot be generated: task {lens.task} does not have {lens.task_size} prompts besides those of the run"
            raise UserError("heldout", None, problem, "give a file of prompts") from None
    else:
        raise UserError(
            "heldout", None, "is required, because pruning is judged on prompts that the run did not see", "give a file of prompts like those of the run"
        )
    fresh = [question for question in found if question.prompt not in prompts]
    if len(fresh) < 2:
        raise UserError("heldout", source, f"has {len(fresh)} prompts that the run did not see", "give at least two")
    return fresh


def _unseen(lens: MechanisticLens, game: "MechanisticGame", prompts: Sequence[Question]) -> "MechanisticGame":
    """The game on other prompts, with the run's kind of value, which those prompts alone might not imply."""
    from raysp.lenses.mechanistic import build_mechanistic_game

    foiled = bool(game.reading.answers[0].foil_ids)
    if lens.value == "accuracy" and any((question.foil is not None) != foiled for question in prompts):
        # The target ranked above its foil, or above the whole vocabulary: two different accuracies.
        problem, remedy = ("is missing in some prompts", "give every prompt a foil") if foiled else ("is given, but the run's prompts have none", "omit foils")
        raise UserError("heldout foil", None, problem, f"{remedy}, as in the run")
    try:
        return build_mechanistic_game(lens.model_copy(update={"value": game.info.description["value"]}), prompts)
    except UserError as error:
        raise error.about(f"heldout {error.field}") from None


class PromptGame(Game):
    """A mechanistic game whose outputs are the values on its individual prompts, so that they are stored with each mask."""

    def __init__(self, game: "MechanisticGame") -> None:
        self.game = game
        prompts: list[dict[str, Any]] = game.info.description["prompts"]
        queries = tuple(Query(i, f"prompt {i + 1}", each["prompt"], str(each.get("target") or ""), each.get("foil")) for i, each in enumerate(prompts))
        described = {**game.info.description, "outputs": "prompts"}
        self.info = replace(game.info, fingerprint=fingerprint({"of": game.info.fingerprint, "outputs": "prompts"}), description=described, queries=queries)

    def measure(self, masks: Masks) -> Measurement:
        """As `Game.measure`."""
        began, before = time.perf_counter(), self.game.mask_tree.tokens
        outputs = self.game.by_prompt(masks)
        return Measurement(outputs.mean(axis=1), self.game.mask_tree.tokens - before, time.perf_counter() - began, outputs)


def known_of(store: "Store", row: dict[str, Any], surrogate: FourierSurrogate, seed: int, game: "MechanisticGame") -> RunEvidence:
    """A run's evidence: its surrogate, a LASSO of single effects on the random evaluations that the surrogate was fitted to, and the exact single effects.

    Single ablations that are missing from the store are measured.
    """
    masks, values = store.fitted_evaluations(row["run_id"])
    drawn = random_rows(masks, surrogate.keep_probability)
    singles = fit_singles(masks[drawn], values[drawn], seed, surrogate.keep_probability)
    near = single_ablations(game.n)
    exact = StoredGame(store, game, row["run_id"], "prune").values(near)
    layers = tuple(component.layer or 0 for component in game.components)
    return RunEvidence(surrogate, singles, exact[0] - exact[1:], layers, game.info.description["value"] not in COSTS, seed)


def _table(rows: Sequence[Pruned]) -> "pa.Table":
    import pyarrow as pa

    return pa.table(
        {
            "keep": pa.array([row.keep for row in rows], pa.float64()),
            "kept": pa.array([int(row.mask.sum()) for row in rows], pa.int32()),
            "method": pa.array([row.method for row in rows], pa.string()),
            "train": pa.array([row.train for row in rows], pa.float64()),
            "heldout": pa.array([row.heldout for row in rows], pa.float64()),
            "lo": pa.array([row.lo for row in rows], pa.float64()),
            "hi": pa.array([row.hi for row in rows], pa.float64()),
            "prompts": pa.array([row.prompts for row in rows], pa.int32()),
            "evaluations": pa.array([row.evaluations for row in rows], pa.int32()),
            "components": pa.array([np.flatnonzero(row.mask).tolist() for row in rows], pa.list_(pa.int32())),
        }
    )


def _write(lens: MechanisticLens, game: "MechanisticGame", chosen: Pruned, folder: Path) -> dict[str, Any]:
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


def _draft(lens: MechanisticLens, game: "MechanisticGame", chosen: Pruned, place: Path) -> dict[str, Any]:
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


def _values_of(options: MechanisticLens, game: "MechanisticGame") -> tuple[float, float, Any]:
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


def _values_on(options: MechanisticLens, game: "MechanisticGame") -> tuple[float, float, Any]:
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
