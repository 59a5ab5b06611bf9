"""Act on a data run: choose the part of its training set to keep, write it to a file, and verify the choice by retraining.

Models are trained by a backend and their outputs stored, so verifying the same choice again costs nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.actions.drop_rules import Dropping, DropRule, choose, read_drop_rule
from raysp.actions.retrainings import Retrainings, Watch, asked_again, data_run, own_seeds
from raysp.blobs import with_stored_blobs
from raysp.datasets.held_out import held_out_queries
from raysp.datasets.sources import check_output_format, write_rows
from raysp.datasets.training_sets import read_training_set
from raysp.errors import UserError
from raysp.runs.progress import Progress
from raysp.runs.queries import direction
from raysp.specs.held_out import RetrainingLens
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.spectral.sets import Floats
from raysp.validation.data_scores import Estimate, held_out_subsets, paired_difference

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.datasets.training_sets import TrainingSet
    from raysp.game import GameInfo
    from raysp.runs.backend import BackendOf
    from raysp.runs.run_store import ActionStore
    from raysp.specs.lenses import DataLens

#: Random sets of the same size with which the chosen set is compared.
RANDOM_SETS = 4


@dataclass(frozen=True)
class Verified:
    """A choice verified by retraining: its mean value over seeds and queries, and its gains over training on everything and on random sets of the same size.

    `means` and `gains` have the keys `all` and `random`, the latter for `random` sets. A gain is positive if the choice is better, also for a loss. `heldout` is
    True if the queries differ from those on which the choice was made.
    """

    chosen: float
    means: dict[str, float]
    gains: dict[str, Estimate]
    random: int
    heldout: bool
    queries: int
    seeds: int
    trained: int
    found: int


@dataclass(frozen=True)
class Curated:
    """The result of `select`: the rule, the choice, the labels dropped, the numbers of examples before and after, the file, the verification and notes."""

    run_id: str
    rule: DropRule
    choice: Dropping
    dropped: tuple[str, ...]
    examples: int
    kept: int
    output: str | None
    verified: Verified | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """How to verify a choice: on the queries of a file (None: the run's own), with this number of training seeds."""

    heldout: str | None = None
    seeds: int = 3


@with_stored_blobs
def select(
    store: ActionStore,
    run_id: str,
    *,
    drop: str | None,
    keep: str | None,
    output: Path | None,
    overwrite: bool,
    verify: Verification | None,
    backend_of: BackendOf,
    consent: Consent = NO_CONSENT,
    watch: Watch,
) -> Curated:
    """Choose by the run's surrogate, write the rows that stay to `output` in their original format, verify by retraining, and store the figures.

    UserError for an unsuitable run, rule or output file, and for unsuitable held-out queries.
    """
    row = store.run_row(run_id)
    _, lens = data_run(row, "select", consent)
    rule = read_drop_rule(drop, keep, int(row["n"]))
    surrogate = store.surrogate(run_id)
    _check_output(output, lens, overwrite=overwrite)
    if verify is not None and verify.seeds < 1:
        raise UserError("seeds", verify.seeds, "is not a number of trainings", "give at least 1")
    watch(Progress(run_id, "loading the model"))
    backend = asked_again(row, lens, backend_of)
    info, notes, heldout = backend.info, list[str](), None if verify is None else verify.heldout
    if heldout is not None:
        notes += held_out_queries(lens, heldout).notes
        backend = backend_of(RetrainingLens.of(lens, own_seeds(lens, 1)[0], heldout=heldout, value=info.description["value"]))
    watch(Progress(run_id, "choosing"))
    better, measured = direction(info.description) > 0, _measured_pairs(store, run_id)
    choice = choose(surrogate, rule, more_is_better=better, measured=measured)
    kept = [example.index for example in info.examples if choice.mask[example.component]]
    if not kept:
        raise UserError("drop" if drop else "keep", rule.text, "leaves no examples", "drop fewer components")
    if output is not None:
        training, _ = read_training_set(lens)
        _write(lens.train, [training.samples[i].row - 1 for i in kept], output)
        notes.append(_left_out(lens, training, info))
    found = None
    if verify is not None:
        trainings = Retrainings(store, run_id, backend_of, lens, backend.info, "verify", watch, heldout)
        found = _verified(trainings, choice, verify.seeds)
        if heldout is None:
            notes.append("The figures are for the run's own queries, on which the choice was made; give --heldout with new queries for an unbiased estimate.")
    store.add_selections(run_id, _table(choice, found, f"{'drop' if drop else 'keep'} {rule.text}"))
    gone = tuple(info.components[i].label for i in np.flatnonzero(~choice.mask))
    written = None if output is None else str(output)
    return Curated(run_id, rule, choice, gone, len(info.examples), len(kept), written, found, tuple(note for note in notes if note))


def _measured_pairs(store: ActionStore, run_id: str) -> dict[tuple[int, int], tuple[str, float]]:
    """Kind and exact deviation of the pairs that the run's validation measured."""
    rows = store.run_table("interactions", run_id).to_pylist()
    return {tuple(sorted(row["components"])): (row["kind"], row["exact"]) for row in rows if row["order"] == 2 and row["verified"]}


# ---- the file


def _check_output(output: Path | None, lens: DataLens, *, overwrite: bool) -> None:
    """UserError for an unusable output file, before anything is trained."""
    if output is None:
        return
    if any(
        output.exists() and Path(source).expanduser().exists() and output.samefile(Path(source).expanduser()) for source in (lens.train, lens.queries) if source
    ):
        raise UserError("output", str(output), "is an input of the run, which must not be overwritten", "name a new file")
    if output.exists() and not (overwrite and output.is_file()):
        remedy = "name a new file, or add --overwrite" if output.is_file() else "name a new file"
        raise UserError("output", str(output), "already exists", remedy)
    check_output_format(lens.train, output)
    if not output.absolute().parent.is_dir() or not os.access(output.absolute().parent, os.W_OK):
        raise UserError("output", str(output), "cannot be written", "name a file in an existing folder that you may write to")


def _write(source: str, numbers: Sequence[int], output: Path) -> None:
    """Write the rows with these numbers (from 0) unchanged; if that fails, no file is left behind."""
    try:
        with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".raysp-") as folder:
            draft = Path(folder) / output.name
            write_rows(source, numbers, draft)
            draft.replace(output)
    except OSError as error:
        raise UserError("output", str(output), f"cannot be written ({error.strerror or error})", "name a file in a folder that you may write to") from None


def _left_out(lens: DataLens, training: TrainingSet, info: GameInfo) -> str:
    """A note on rows that are missing from the file although they were not dropped; '' if there are none."""
    trained_on, queries_drawn = len(training.samples), len(info.queries) if lens.queries is None else 0
    limited = training.rows > trained_on + queries_drawn
    parts = (["the queries drawn from it"] if queries_drawn else []) + ([f"the rows beyond limit {lens.limit}"] if limited else [])
    return f"The run used {trained_on} rows of the training set; the file contains none of the others ({' and '.join(parts)})." if parts else ""


# ---- verification


def _verified(trainings: Retrainings, choice: Dropping, seeds: int) -> Verified:
    lens, heldout = trainings.lens, trainings.heldout is not None
    kept = int(choice.mask.sum())
    everything = np.ones((1, len(choice.mask)), dtype=np.bool_)
    random = held_out_subsets(len(choice.mask), kept, RANDOM_SETS, np.random.default_rng([lens.training_seed, 8]), choice.mask[None])
    outputs = trainings.outputs(np.concatenate([everything, choice.mask[None], random]), own_seeds(lens, seeds))
    chosen, sets = outputs[:, 1], np.moveaxis(outputs, 1, 0)
    others: dict[str, Floats] = {"all": sets[:1]} | ({"random": sets[2:]} if len(random) else {})
    sign = direction(trainings.info.description)
    gains = {name: paired_difference(sign * chosen, sign * each) for name, each in others.items()}
    means: dict[str, float] = {name: float(each.mean()) for name, each in others.items()}
    return Verified(float(chosen.mean()), means, gains, len(random), heldout, outputs.shape[2], seeds, trainings.trained, trainings.found)


def _table(choice: Dropping, found: Verified | None, rule: str) -> pa.Table:
    """One row per comparison, as in the store's `selections`; a single row without figures for a choice that was not verified."""
    import pyarrow as pa

    kept = np.flatnonzero(choice.mask).tolist()
    common = {"dropped": len(choice.mask) - len(kept), "kept": len(kept), "components": kept}
    if found is None:
        predicted = f"not verified; the surrogate predicts {choice.before:.4g} before and {choice.after:.4g} after"
        rows: list[dict[str, Any]] = [{"rule": rule, **common, "note": predicted}]
    else:
        on = f"on {found.queries} {'held-out queries' if found.heldout else 'queries of the run'}"
        rows = [
            {
                "rule": rule,
                **common,
                "heldout_before": found.means[name],
                "heldout_after": found.chosen,
                "difference": gain.value,
                "lo": gain.lo,
                "hi": gain.hi,
                "seeds": found.seeds,
                "note": f"{on}, against {'all components' if name == 'all' else f'{found.random} random sets of the same size'}",
            }
            for name, gain in found.gains.items()
        ]
    names = {name: None for row in rows for name in row}
    types = {"dropped": pa.int32(), "kept": pa.int32(), "components": pa.list_(pa.int32()), "seeds": pa.int32()}
    return pa.table({name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names})
