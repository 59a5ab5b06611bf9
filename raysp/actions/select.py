"""Acting on a data run: choose what of its training set to keep, write that down, and see by training whether it was wise.

Trainings happen in this process, and are kept in the store: verified again, a choice costs nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.actions.drop_rules import Dropping, DropRule, choose, read_drop_rule
from raysp.actions.retrainings import Retrainings, Watch, data_run, own_seeds, rebuilt
from raysp.datasets.sources import check_output_format, write_rows
from raysp.errors import UserError
from raysp.runs.progress import Progress
from raysp.runs.queries import direction
from raysp.spectral.sets import Floats
from raysp.validation.data_scores import Estimate, held_out_subsets, paired_difference

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.datasets.training_sets import TrainingSet
    from raysp.lenses.data import DataGame
    from raysp.specs.lenses import DataLens
    from raysp.store import Store

#: Random sets as large as the one chosen that it is compared with.
RANDOM_SETS = 4
#: Held-out queries, at least.
LEAST_HELDOUT = 2


@dataclass(frozen=True)
class Verified:
    """What trainings say of a choice: its mean over seeds and queries, that of everything and of random sets as large, and what is gained over either.

    `means` and `gains` are by what the choice is compared with, `all` and so many `random` sets. A gain is positive where the choice is better, whatever the value. `heldout` says whether the queries are others than those that it was made on.
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
    """What `select` did: the wish and the choice, the labels of what goes, examples before and after, the file written, what trainings say, remarks."""

    run_id: str
    wish: DropRule
    choice: Dropping
    dropped: tuple[str, ...]
    examples: int
    kept: int
    output: str | None
    verified: Verified | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """How to verify: on queries of a file (None: the run's own), with so many training seeds."""

    heldout: str | None = None
    seeds: int = 3


def select(
    store: Store, run_id: str, *, drop: str | None, keep: str | None, output: Path | None, overwrite: bool, verify: Verification | None, watch: Watch
) -> Curated:
    """Choose by the run's surrogate, write the rows that stay as JSONL into `output`, verify by training, and keep the figures in the store.

    UserError for a run that cannot be acted on, a wish, a file or held-out queries that cannot be.
    """
    row = store.run_row(run_id)
    _, lens = data_run(row, "select")
    wish = read_drop_rule(drop, keep, int(row["n"]))
    surrogate = store.surrogate(run_id)
    _check_output(output, lens, overwrite=overwrite)
    if verify is not None and verify.seeds < 1:
        raise UserError("seeds", verify.seeds, "is no number of trainings", "give 1 or more")
    watch(Progress(run_id, "loading the model"))
    game = rebuilt(row, lens)
    fresh, notes = _fresh(lens, game, verify.heldout) if verify is not None and verify.heldout is not None else (None, [])
    watch(Progress(run_id, "choosing"))
    better, measured = direction(game.info.description) > 0, _measured_pairs(store, run_id)
    choice = choose(surrogate, wish, more_is_better=better, measured=measured)
    kept = game.examples_of(choice.mask)
    if not len(kept):
        raise UserError("drop" if drop else "keep", wish.text, "leaves no example", "drop less")
    samples = game.training.samples
    if output is not None:
        _write(lens.train, [samples[i].row - 1 for i in kept.tolist()], output)
        notes.append(_left_out(lens, game))
    found = None
    if verify is not None:
        trainings = Retrainings(store, run_id, game if fresh is None else _asking(lens, game, fresh), "verify", watch)
        found = _verified(trainings, lens, choice, verify.seeds, heldout=fresh is not None)
        if fresh is None:
            notes.append("The figures are on the run's own queries, which the choice was made on: give other queries with --heldout to see what it is worth.")
    store.add_selections(run_id, _table(choice, found, f"{'drop' if drop else 'keep'} {wish.text}"))
    gone = tuple(game.components[i].label for i in np.flatnonzero(~choice.mask))
    written = None if output is None else str(output)
    return Curated(run_id, wish, choice, gone, len(samples), len(kept), written, found, tuple(note for note in notes if note))


def _measured_pairs(store: Store, run_id: str) -> dict[tuple[int, int], tuple[str, float]]:
    """What the run's validation measured of pairs."""
    rows = store.run_table("interactions", run_id).to_pylist()
    return {tuple(sorted(row["components"])): (row["kind"], row["exact"]) for row in rows if row["order"] == 2 and row["verified"]}


# ---- the file


def _check_output(output: Path | None, lens: DataLens, *, overwrite: bool) -> None:
    """UserError before anything is paid for."""
    if output is None:
        return
    if any(
        output.exists() and Path(source).expanduser().exists() and output.samefile(Path(source).expanduser()) for source in (lens.train, lens.queries) if source
    ):
        raise UserError("output", str(output), "is what the run was asked about, and could not be read again", "name a new file")
    if output.exists() and not (overwrite and output.is_file()):
        mend = "name a new file, or add --overwrite" if output.is_file() else "name a new file"
        raise UserError("output", str(output), "is there already", mend)
    check_output_format(lens.train, output)
    if not output.absolute().parent.is_dir() or not os.access(output.absolute().parent, os.W_OK):
        raise UserError("output", str(output), "cannot be written", "name a file in a folder that is there, and that you may write to")


def _write(source: str, numbers: Sequence[int], output: Path) -> None:
    """The rows with these numbers (from 0) as they were read, all or none of them."""
    try:
        with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".raysp-") as folder:
            draft = Path(folder) / output.name
            write_rows(source, numbers, draft)
            draft.replace(output)
    except OSError as error:
        raise UserError("output", str(output), f"cannot be written ({error.strerror or error})", "name a file in a folder that you may write to") from None


def _left_out(lens: DataLens, game: DataGame) -> str:
    """What the file does not hold besides what was dropped."""
    trained_on, asked = len(game.training.samples), len(game.info.queries) if lens.queries is None else 0
    limited = game.training.rows > trained_on + asked
    parts = (["the queries drawn from it"] if asked else []) + ([f"what limit {lens.limit} left out"] if limited else [])
    return f"Of the training set the run used {trained_on} rows; the file holds none of the others ({' and '.join(parts)})." if parts else ""


# ---- verification


def _fresh(lens: DataLens, game: DataGame, source: str) -> tuple[TrainingSet, list[str]]:
    """Queries that the run has neither asked nor trained on, and a remark where others were left out; UserError where there are too few."""
    from raysp.datasets.training_sets import read_training_set

    try:
        training, queries = read_training_set(lens.model_copy(update={"queries": source, "query_count": None}))
    except UserError as error:
        raise error.about(error.field.replace("queries", "heldout", 1)) from None
    seen = {(sample.prompt.strip(), sample.completion.strip()) for sample in (*game.training.samples, *read_training_set(lens)[1].samples)}
    fresh = tuple(sample for sample in queries.samples if (sample.prompt.strip(), sample.completion.strip()) not in seen)
    if len(fresh) < LEAST_HELDOUT:
        raise UserError("heldout", source, f"has {len(fresh)} queries that the run has not seen", f"give at least {LEAST_HELDOUT}")
    known = len(queries.samples) - len(fresh)
    said = [f"{known} of {len(queries.samples)} held-out queries are left out, as the run has seen them."] if known else []
    unknown = sorted({sample.label for sample in fresh if sample.label is not None} - set(training.labels))
    if unknown and training.labels:
        said.append(f"Held-out queries have labels that no training example has: {', '.join(unknown)}.")
    return replace(queries, samples=fresh), said


def _asking(lens: DataLens, game: DataGame, fresh: TrainingSet) -> DataGame:
    """The same training set and kind of value, other queries."""
    from raysp.lenses.data import build_data_game

    try:
        return build_data_game(lens.model_copy(update={"value": game.value}), fresh)
    except UserError as error:
        raise error.about(error.field.replace("queries", "heldout", 1)) from None


def _verified(trainings: Retrainings, lens: DataLens, choice: Dropping, seeds: int, *, heldout: bool) -> Verified:
    kept = int(choice.mask.sum())
    everything = np.ones((1, len(choice.mask)), dtype=np.bool_)
    random = held_out_subsets(len(choice.mask), kept, RANDOM_SETS, np.random.default_rng([lens.training_seed, 8]), choice.mask[None])
    outputs = trainings.outputs(np.concatenate([everything, choice.mask[None], random]), own_seeds(lens, seeds))
    chosen, sets = outputs[:, 1], np.moveaxis(outputs, 1, 0)
    others: dict[str, Floats] = {"all": sets[:1]} | ({"random": sets[2:]} if len(random) else {})
    sign = direction(trainings.game.info.description)
    gains = {name: paired_difference(sign * chosen, sign * each) for name, each in others.items()}
    means: dict[str, float] = {name: float(each.mean()) for name, each in others.items()}
    return Verified(float(chosen.mean()), means, gains, len(random), heldout, outputs.shape[2], seeds, trainings.trained, trainings.found)


def _table(choice: Dropping, found: Verified | None, rule: str) -> pa.Table:
    """One row a comparison, as the store's `selections`; one without figures for a choice that was not verified."""
    import pyarrow as pa

    kept = np.flatnonzero(choice.mask).tolist()
    common = {"dropped": len(choice.mask) - len(kept), "kept": len(kept), "components": kept}
    if found is None:
        predicted = f"not verified; the surrogate predicts {choice.before:.4g} before and {choice.after:.4g} after"
        rows: list[dict[str, Any]] = [{"rule": rule, **common, "note": predicted}]
    else:
        on = f"on {found.queries} {'held-out queries' if found.heldout else 'queries of the run itself'}"
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
                "note": f"{on}, against {'all components' if name == 'all' else f'{found.random} random sets as large'}",
            }
            for name, gain in found.gains.items()
        ]
    names = {name: None for row in rows for name in row}
    types = {"dropped": pa.int32(), "kept": pa.int32(), "components": pa.list_(pa.int32()), "seeds": pa.int32()}
    return pa.table({name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names})
