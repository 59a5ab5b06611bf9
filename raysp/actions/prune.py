"""Act on a mechanistic run: remove parts of the model, evaluate the result on held-out prompts, and write it as a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from raysp.actions.finished import finished_run
from raysp.actions.pruned_models import check_folder, check_weights, write_pruned
from raysp.actions.pruning_methods import SHARES, Pruned, PruningBudget, RunEvidence, compare_methods
from raysp.blobs import with_stored_blobs
from raysp.errors import UserError
from raysp.explorers.fitting import fit_singles
from raysp.explorers.samples import random_rows
from raysp.runs.continuation import check_same_game
from raysp.runs.stored_game import StoredGame
from raysp.sampling.ablations import single_ablations
from raysp.specs.held_out import HeldOutPromptsLens
from raysp.specs.lenses import COSTS, MechanisticLens
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.specs.run import RunSpec
from raysp.spectral.fourier import FourierSurrogate

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.lenses.mechanistic import MechanisticGame
    from raysp.runs.backend import Backend, BackendOf
    from raysp.runs.run_store import ActionStore

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
    store: "ActionStore",
    run_id: str,
    keep: float,
    folder: Path | None,
    *,
    heldout: str | None,
    per_layer: bool,
    draws: int = DRAWS,
    backend_of: "BackendOf",
    consent: Consent = NO_CONSENT,
    watch: Callable[[str], None],
) -> Pruning:
    """Choose what to remove, compare methods at `keep` and the published shares, write the model to `folder`, and store the figures.

    Only a model that is written is loaded in this process. UserError for an unsuitable run, share, folder or set of held-out prompts.
    """
    row = store.run_row(run_id)
    spec, lens = _checked(row, consent)
    if folder is not None:
        check_folder(folder)
    surrogate = store.surrogate(run_id)
    layers = tuple(component.layer or 0 for component in store.components(row["game_id"]))
    PruningBudget.of(keep, layers, per_layer=per_layer)  # raises before anything is loaded
    watch("loading the model")
    backend = backend_of(lens)
    check_same_game(row, backend.info, "a model or prompts")
    game = None if folder is None else _writable(lens, row, folder)
    asked = backend.info.description
    unseen = backend_of(HeldOutPromptsLens.of(lens, heldout=heldout, value=asked["value"], foiled=bool(asked["prompts"][0].get("foil_ids"))))
    watch("fitting what the run measured")
    train, heldout_values = (StoredGame(store, each, run_id, "prune") for each in (backend, unseen))
    known = known_of(store, row, surrogate, spec.seed, backend)
    rows: list[Pruned] = []
    for share in _shares(keep, layers, per_layer):
        watch(f"comparing at {share:.0%} kept")
        rows += compare_methods(known, train.values, heldout_values.outputs, share, per_layer=per_layer, draws=draws)
    store.add_prunings(run_id, _table(rows))
    written = None
    if folder is not None and game is not None:
        watch("writing the model")
        written = write_pruned(lens, game, next(found for found in rows if found.keep == keep and found.method == "refined"), folder)
    return Pruning(run_id, tuple(rows), written)


def _checked(row: dict[str, Any], consent: Consent) -> tuple[RunSpec, MechanisticLens]:
    spec = finished_run(row, "prune", consent)
    lens = cast("MechanisticLens", spec.lens)
    if lens.ablation not in ("zero", "zero-rescale"):
        raise UserError("ablation", lens.ablation, "cannot be expressed in weights", "run again with ablation zero or zero-rescale")
    if lens.positions != "all":
        raise UserError("positions", lens.positions, "are only part of a prompt, but weights act on every position", "run again with positions all")
    return spec, lens


def _writable(lens: MechanisticLens, row: dict[str, Any], folder: Path) -> "MechanisticGame":
    """The run's game in this process, whose weights can be written without its parts. UserError if they cannot."""
    from raysp.lenses.mechanistic import build_mechanistic_game

    game = build_mechanistic_game(lens)
    check_same_game(row, game.info, "a model or prompts")
    check_weights(game, folder)
    return game


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


def known_of(store: "ActionStore", row: dict[str, Any], surrogate: FourierSurrogate, seed: int, backend: "Backend") -> RunEvidence:
    """A run's evidence: its surrogate, a LASSO of single effects on the random evaluations that the surrogate was fitted to, and the exact single effects.

    Single ablations that are missing from the store are measured.
    """
    masks, values = store.fitted_evaluations(row["run_id"])
    drawn = random_rows(masks, surrogate.keep_probability)
    singles = fit_singles(masks[drawn], values[drawn], seed, surrogate.keep_probability)
    info = backend.info
    near = single_ablations(info.n)
    exact = StoredGame(store, backend, row["run_id"], "prune").values(near)
    layers = tuple(component.layer or 0 for component in info.components)
    return RunEvidence(surrogate, singles, exact[0] - exact[1:], layers, info.description["value"] not in COSTS, seed)


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
