"""Score a data run by how well its answer, competing methods and chance predict retraining on subsets that the run was not fitted to.

Models are trained by a backend, batch by batch, and their outputs are stored: scoring a run again pays only for what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.actions.lds_methods import Effects, Method, Plan, Score, Surrogates, Trained, mislabel_scores, removals, score
from raysp.actions.retrainings import Retrainings, Watch, asked_again, data_run, own_seeds
from raysp.blobs import read_bytes, with_stored_blobs
from raysp.datasets.cells import text_of
from raysp.errors import EvaluationError, UserError
from raysp.explorers.fitting import fit_singles
from raysp.explorers.samples import random_rows
from raysp.home import local_path
from raysp.runs.gradients import Gradients
from raysp.runs.progress import Progress
from raysp.runs.queries import direction
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.spectral.fourier import FourierSurrogate
from raysp.validation.data_scores import held_out_subsets

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.datasets.training_sets import Sample
    from raysp.masks import Masks
    from raysp.runs.backend import Backend, BackendOf
    from raysp.runs.run_store import ActionStore
    from raysp.specs.lenses import DataLens
    from raysp.specs.run import RunSpec

GRADIENTS = ("influence", "tracin", "gradient_dot")
METHODS = ("proxyspex", "singles", *GRADIENTS)
#: The fewest subsets to score on.
LEAST_SUBSETS = 10
#: The difference between a run's P(keep) and the fraction scored above which a note is added.
FAR = 0.1
#: Kinds of value that are negative for a wrong answer.
MARGINS = ("margin", "class_margin")
#: Cells of a column that mark an example as mislabelled, or as not mislabelled.
YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0", "none", "")


@dataclass(frozen=True)
class LdsOptions:
    """What to score and on what: the number of subsets, each keeping `fraction` of the components, the number of training seeds, and the methods.

    `leave_one_out` is the number of components to leave out one at a time, `brittleness` the numbers of most helpful components to remove, and `mislabelled` a
    column of the training set, or a file of row numbers, that marks mislabelled examples.
    """

    subsets: int = 100
    seeds: int = 2
    fraction: float = 0.5
    methods: tuple[str, ...] = METHODS
    leave_one_out: int = 0
    brittleness: tuple[int, ...] = ()
    mislabelled: str | None = None


@dataclass(frozen=True)
class Scored:
    """The result of scoring: all figures, the labels of the queries, how many trainings were run and how many were found in the store, conventions, notes."""

    run_id: str
    rows: tuple[Score, ...]
    queries: tuple[str, ...]
    trained: int
    found: int
    conventions: dict[str, Any]
    notes: tuple[str, ...]


@with_stored_blobs
def score_run(store: ActionStore, run_id: str, options: LdsOptions, *, backend_of: BackendOf, consent: Consent = NO_CONSENT, watch: Watch) -> Scored:
    """Train on the subsets that the options require, score every method, and store the figures. UserError for an unsuitable run or invalid options."""
    row = store.run_row(run_id)
    spec, lens = data_run(row, "lds", consent)
    kept = _checked(options, int(row["n"]))
    keep_probability = store.keep_probability(run_id)
    watch(Progress(run_id, "loading the model"))
    backend = asked_again(row, lens, backend_of)
    info = backend.info
    wrong = _mislabelled(options.mislabelled, lens) if options.mislabelled is not None else None
    watch(Progress(run_id, "fitting each query"))
    methods = _methods(store, row, spec, backend, options.methods)
    plan, notes = _plan(options, methods, store.run_masks(run_id, "explore"), kept, lens.training_seed)
    if abs(keep_probability - options.fraction) > FAR:
        notes.append(f"the run's masks keep {keep_probability:.0%} of the components and these subsets {options.fraction:.0%}: the run saw few like them")
    missing = [name for name in GRADIENTS if name in options.methods and name not in {method.name for method in methods}]
    notes += [f"{', '.join(missing)}: not available, because this model is trained one subset at a time"] if missing else []
    if wrong is not None and wrong.others:
        notes.append(f"{wrong.others} of the rows marked as mislabelled are not training examples: they were drawn as queries, or excluded by limit")
    trainings = Retrainings(store, run_id, backend_of, lens, info, "lds", watch)
    seeds = own_seeds(lens, options.seeds)
    masks = plan.masks()
    sign = direction(info.description)
    trained = Trained(masks, sign * trainings.outputs(masks, seeds))
    if not np.ptp(trained.mean(plan.heldout), axis=0).any():
        raise EvaluationError("no query's output depends on the training subset, so there is nothing to score")
    watch(Progress(run_id, "scoring"))
    rows = score(methods, plan, trained, margins=info.description["value"] in MARGINS, seed=spec.seed)
    if wrong is not None:
        component_of = np.array([example.component for example in info.examples])
        rows += mislabel_scores(methods, component_of, wrong.examples, wrong.own, seed=spec.seed)
    conventions = {
        "sign": "effects are v(all) - v(all without); a higher output is better" + (", so a loss counts as negative" if sign < 0 else ""),
        "correlation": "Spearman, mean over queries; 95% interval from resampling queries and subsets",
        "fraction": options.fraction,
        "kept": kept,
        "subsets": len(plan.heldout),
        "seeds": options.seeds,
        "training_seeds": seeds,
        "value": info.description["value"],
    }
    store.replace_data_scores(run_id, _table(rows, len(info.queries), conventions))
    return Scored(run_id, tuple(rows), tuple(query.label for query in info.queries), trainings.trained, trainings.found, conventions, tuple(notes))


def _checked(options: LdsOptions, n: int) -> int:
    """The number of components that a subset keeps; UserError for invalid options."""
    if options.subsets < LEAST_SUBSETS:
        raise UserError("subsets", options.subsets, "are too few to tell a correlation from chance", f"give {LEAST_SUBSETS} or more")
    if options.seeds < 1:
        raise UserError("seeds", options.seeds, "is not a number of trainings", "give at least 1; a ceiling needs at least 2")
    if not 0 < options.fraction < 1:
        raise UserError("fraction", options.fraction, "is not a share of the components", "give a number between 0 and 1, such as 0.5")
    kept = round(options.fraction * n)
    if not 0 < kept < n:
        raise UserError("fraction", options.fraction, f"keeps {kept} of {n} components", "give a share that keeps some of them, such as 0.5")
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown or not options.methods:
        raise UserError("methods", unknown[0] if unknown else None, "is not known", f"choose among {', '.join(METHODS)}")
    if options.leave_one_out and not 3 <= options.leave_one_out <= n:
        raise UserError("leave_one_out", options.leave_one_out, f"is not a number of components to correlate, out of {n}", f"give 3 to {n}")
    for k in options.brittleness:
        if not 0 < k < n:
            raise UserError("brittleness", k, f"is not a number of components to remove, out of {n}", f"give 1 to {n - 1}")
    return kept


def _methods(store: ActionStore, row: dict[str, Any], spec: RunSpec, backend: Backend, names: Sequence[str]) -> list[Method]:
    """The methods with these names. The run's own answer is named after its explorer."""
    run_id, explorer, sign = row["run_id"], row["explorer"], direction(backend.info.description)
    fits = [store.surrogate(run_id, query) for query in range(len(backend.info.queries))]
    found = list[Method]()
    if "proxyspex" in names or explorer in names:
        found.append(Surrogates(explorer, [FourierSurrogate.combined([fit], [sign]) for fit in fits]))
    if "singles" in names and explorer != "singles":
        masks, _ = store.fitted_evaluations(run_id)
        masks = masks[random_rows(masks, fits[0].keep_probability)]
        outputs = store.outputs(row["game_id"], masks)
        found.append(Surrogates("singles", [fit_singles(masks, sign * column, spec.seed, fits[0].keep_probability) for column in outputs.T]))
    wanted = [name for name in GRADIENTS if name in names]
    effects = Gradients(store, backend).report().effects if wanted else {}
    found += [Effects(name, sign * effects[name].T) for name in wanted if name in effects]
    if not found:
        raise UserError(
            "methods",
            ",".join(names),
            "need gradients, which are not available for a model that is trained one subset at a time",
            "choose proxyspex or singles",
        )
    return found


def _plan(options: LdsOptions, methods: Sequence[Method], fitted: Masks, kept: int, seed: int) -> tuple[Plan, list[str]]:
    """The subsets to train on, drawn with their own seed: any run on these components gets the same ones, apart from those that it was fitted to."""
    n = fitted.shape[1]
    rng = np.random.default_rng([seed, 5])
    heldout = held_out_subsets(n, kept, options.subsets, rng, fitted)
    if len(heldout) < LEAST_SUBSETS:
        problem = f"are not available: the run was fitted to all but {len(heldout)} of the subsets of {kept} out of {n} components"
        raise UserError("subsets", options.subsets, problem, "give another fraction, or run again with a smaller budget")
    notes = [] if len(heldout) == options.subsets else [f"there are only {len(heldout)} subsets of {kept} components that the run was not fitted to"]
    singles = np.sort(np.random.default_rng([seed, 6]).choice(n, options.leave_one_out, replace=False))
    gone = removals(methods, options.brittleness, n, np.random.default_rng([seed, 7]))
    return Plan(heldout, singles, gone), notes


# ---- mislabelled examples


@dataclass(frozen=True)
class Mislabelled:
    """Mislabelled examples, bool `(examples,)`; the queries with the same label, bool `(examples, q)`, None without labels; the number of other marked rows."""

    examples: NDArray[np.bool_]
    own: NDArray[np.bool_] | None
    others: int = 0


def _mislabelled(source: str, lens: DataLens) -> Mislabelled:
    """Read the marks from a column of the training set or a file of row numbers; UserError for a source that is neither, or that marks none or all."""
    from raysp.datasets.training_sets import read_training_set

    training, queries = read_training_set(lens)
    samples = training.samples
    columns = list(samples[0].extra)
    rows = set[int]()
    if source in columns:
        marked = np.array([_marked(source, sample) for sample in samples])
    elif local_path("mislabelled", source).is_file():
        rows = _row_numbers(source, training.rows)
        marked = np.array([sample.row in rows for sample in samples])
    else:
        raise UserError("mislabelled", source, "is neither a column of the training set nor a file", f"choose one of the columns {', '.join(columns)}")
    if marked.all() or not marked.any():
        raise UserError("mislabelled", source, f"marks {'all' if marked.all() else 'none'} of {len(samples)} training examples", "mark some of them")
    labels = [sample.label for sample in samples]
    own = np.array([[label == query.label for query in queries.samples] for label in labels]) if None not in labels else None
    return Mislabelled(marked, own, len(rows - {sample.row for sample in samples}))


def _marked(column: str, sample: Sample) -> bool:
    answer = text_of(sample.extra[column]).strip().lower()
    if answer not in YES + NO:
        raise UserError(f"mislabelled, row {sample.row}", sample.extra[column], f"in column {column} is neither true nor false", "write true or false")
    return answer in YES


def _row_numbers(path: str, last: int) -> set[int]:
    remedy = "list the numbers of the mislabelled rows, counted from 1, one per line"
    try:
        rows = {int(word) for word in read_bytes(path).decode("utf-8").split()}
    except (OSError, ValueError) as error:
        raise UserError("mislabelled", path, f"cannot be read ({error})", remedy) from None
    if strange := sorted(row for row in rows if not 1 <= row <= last):
        raise UserError("mislabelled", path, f"lists row {strange[0]}, but the training set has rows 1 to {last}", remedy)
    return rows


def _table(rows: Sequence[Score], queries: int, conventions: dict[str, Any]) -> pa.Table:
    """The rows of the store's `data_scores`; the notes of figures that are means over queries state the conventions."""
    import pyarrow as pa

    note = f"{conventions['correlation']}; {conventions['sign']}; training seeds {conventions['training_seeds'][0]} to {conventions['training_seeds'][-1]}"
    count = len(rows)
    return pa.table(
        {
            "method": pa.array([row.method for row in rows], pa.string()),
            "metric": pa.array([row.metric for row in rows], pa.string()),
            "score": pa.array([row.value for row in rows], pa.float64()),
            "lo": pa.array([row.lo for row in rows], pa.float64()),
            "hi": pa.array([row.hi for row in rows], pa.float64()),
            "query": pa.array([row.query for row in rows], pa.int32()),
            "k": pa.array([row.k for row in rows], pa.int32()),
            "queries": pa.array([queries if row.query is None else 1 for row in rows], pa.int32()),
            "subsets": pa.array([conventions["subsets"]] * count, pa.int32()),
            "seeds": pa.array([conventions["seeds"]] * count, pa.int32()),
            "fraction": pa.array([conventions["fraction"]] * count, pa.float64()),
            "note": pa.array([None if row.query is not None else f"{row.note}; {note}" if row.note else note for row in rows], pa.string()),
        }
    )
