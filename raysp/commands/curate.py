"""Commands that act on data runs: `lds` scores one by retraining on unseen subsets, `select` chooses which examples of its training set to keep."""

import math
from dataclasses import asdict, fields, is_dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from raysp.commands.acting import Local, acting
from raysp.commands.consent import AllowPickle, AllowRemoteCode
from raysp.commands.inspect import RunId
from raysp.commands.run import Json, Store
from raysp.errors import UserError
from raysp.home import local_path, store_path
from raysp.report.numbers import DIGITS, NONE, Scale, number, scale
from raysp.specs.policy import Consent

#: How scores of the retrainings themselves are captioned.
CEILINGS = {
    "ceiling_halves": "between disjoint halves of the seeds",
    "ceiling_averaged": "between means of all seeds (Spearman-Brown)",
    "ceiling_attainable": "attainable by a method that knows the expected output",
}
OTHERS = {
    "leave_one_out": "leave one out (Spearman)",
    "leave_one_out_pearson": "leave one out (Pearson)",
    "mislabel_auc": "mislabelled found (AUC)",
    "mislabel_auc_own_label": "mislabelled found, on queries of their own label (AUC)",
    "brittleness_drop": "drop of the output without the {k} most helpful",
    "flip_rate": "correct answers lost without the {k} most helpful",
}
#: Those of them that lie between 0 and 1.
SHARES = ("mislabel_auc", "mislabel_auc_own_label", "flip_rate")
SHOWN = 12


def lds(
    run_id: RunId,
    *,
    subsets: Annotated[int, typer.Option(help="Subsets to train on, none of which the run has seen.")] = 100,
    seeds: Annotated[int, typer.Option(help="Trainings of each subset, from seeds that the run did not use; a ceiling needs two or more.")] = 2,
    fraction: Annotated[float, typer.Option(help="Exact share of the components in each subset.")] = 0.5,
    methods: Annotated[str, typer.Option(help="Attribution methods to score, separated by commas.")] = "proxyspex,singles,influence,tracin,gradient_dot",
    leave_one_out: Annotated[int, typer.Option(metavar="K", help="Also leave out K components one at a time and correlate the effects.")] = 0,
    brittleness: Annotated[
        str | None, typer.Option(metavar="K,...", help="Also remove the K most helpful components of each query and measure the drop.")
    ] = None,
    mislabelled: Annotated[str | None, typer.Option(help="A column that marks mislabelled examples, or a file of their row numbers.")] = None,
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    local: Local = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Score attribution methods by how well they predict retraining on unseen subsets (linear datamodeling score).

    Retrainings run on the cluster, or in this process with --local. They are stored and reused.
    """
    from raysp.actions.lds import LdsOptions, score_run
    from raysp.commands import display

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    options = LdsOptions(subsets, seeds, fraction, names, leave_one_out, _numbers(brittleness), mislabelled)
    with acting(store_path(store), run_id, local=local) as (found, place), display.live_bar(json) as bar:
        done = score_run(
            place.store,
            found,
            options,
            backend_of=place.backend_of,
            consent=Consent(allow_pickle, allow_remote_code),
            watch=lambda progress: bar("", progress),
        )
    if json:
        display.print_json(_plain(asdict(done)))
        return
    _print_scores(done)


def select(
    run_id: RunId,
    *,
    drop: Annotated[str | None, typer.Option(help="What to drop: harmful:5%, harmful:10, redundant or redundant:10%.")] = None,
    keep: Annotated[str | None, typer.Option(help="What to keep instead: best:50 or best:50%.")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write the rows that are kept to this new file, as JSONL.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Train on everything, on what is kept and on random sets of the same size, and compare.")] = False,
    heldout: Annotated[str | None, typer.Option(help="Queries to verify on, in the formats of --queries; by default the run's own.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each set when verifying.")] = 3,
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    local: Local = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Choose which examples of a training set to keep, from what a data run found, and verify the choice by training.

    Retrainings run on the cluster, or in this process with --local. They are stored and reused.
    """
    from raysp.actions.select import Verification
    from raysp.actions.select import select as act
    from raysp.commands import display

    if heldout is not None and not verify:
        raise UserError("heldout", heldout, "is used only when verifying", "add --verify")
    file, how = None if output is None else local_path("output", output), Verification(heldout, seeds) if verify else None
    with acting(store_path(store), run_id, local=local) as (found, place), display.live_bar(json) as bar:
        done = act(
            place.store,
            found,
            drop=drop,
            keep=keep,
            output=file,
            overwrite=overwrite,
            verify=how,
            backend_of=place.backend_of,
            consent=Consent(allow_pickle, allow_remote_code),
            watch=lambda progress: bar("", progress),
        )
    if json:
        display.print_json(_plain(_told(done) | {"choice": _told(done.choice) | {"mask": None, "kept": done.choice.mask.nonzero()[0].tolist()}}))
        return
    _print_choice(done)


def _numbers(text: str | None) -> tuple[int, ...]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if any(not word.isdecimal() for word in words):
        raise UserError("brittleness", text, "is not a list of numbers of components", "write for example 4 or 2,4,8")
    return tuple(sorted({int(word) for word in words}))


def _told(value: Any) -> dict[str, Any]:
    """A data class as a dict, nested data classes included."""
    return {each.name: _told(inner) if is_dataclass(inner := getattr(value, each.name)) else inner for each in fields(value)}


def _plain(value: Any) -> Any:
    """The value for JSON, with None in place of NaN."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if is_dataclass(value):
        return _plain(_told(value))
    return None if isinstance(value, float) and math.isnan(value) else value


def _print_scores(done: Any) -> None:
    from rich.table import Table

    from raysp.commands import display

    told = done.conventions
    whole = [row for row in done.rows if row.query is None]
    by_metric = {(row.metric, row.method): row for row in whole}
    title = f"Linear datamodeling score: {told['subsets']} subsets of {told['kept']} components, mean of {told['seeds']} trainings, {len(done.queries)} queries"
    table = Table("method", "LDS", "95% interval", "shuffled components", title=title, title_justify="left", box=None)
    for row in whole:
        if row.metric == "lds":
            floor = by_metric["lds_floor", row.method]
            table.add_row(row.method, _score(row.value), _interval(row), f"{_score(floor.value)} {_interval(floor)}")
    display.out.print(table)
    ceilings = Table("ceiling", "", "95% interval", box=None)
    for metric, words in CEILINGS.items():
        if (metric, None) in by_metric:
            ceilings.add_row(words, _score(by_metric[metric, None].value), _interval(by_metric[metric, None]))
    if ceilings.row_count:
        display.out.print(ceilings)
    else:
        display.out.print("No ceiling: it needs at least two training seeds (--seeds 2).")
    others = Table("score", "method", "", "95% interval", box=None)
    drops = scale(value for row in whole if row.metric == "brittleness_drop" for value in (row.value, row.lo, row.hi))
    for row in whole:
        if row.metric in OTHERS:
            size, signed = (drops if row.metric == "brittleness_drop" else Scale(3)), row.metric not in SHARES
            others.add_row(OTHERS[row.metric].format(k=row.k), row.method, size.whole(row.value, signed=signed), _interval(row, size, signed=signed))
    if others.row_count:
        display.out.print(others)
    notes = dict.fromkeys((*done.notes, *(row.note for row in whole if row.metric == "lds" and row.note)))
    for note in (*notes, f"{told['correlation']}; {told['sign']}.", f"{done.trained} retrainings here, {done.found} from the store."):
        display.out.print(f"  · {note}", markup=False)


def _print_choice(done: Any) -> None:
    from rich.table import Table

    from raysp.commands import display
    from raysp.report.query_view import plain

    choice = done.choice
    kept, largest = int(choice.mask.sum()), max(choice.after, choice.before, key=abs)
    display.out.print(
        f"{len(done.dropped)} of {len(choice.mask)} components are dropped, {kept} are kept ({done.kept} of {done.examples} examples). "
        f"The run predicts a value of {number(choice.after, like=largest, digits=DIGITS)} instead of {number(choice.before, like=largest, digits=DIGITS)}.",
        markup=False,
    )
    listed = "; ".join(map(plain, done.dropped[:SHOWN])) + ("; …" if len(done.dropped) > SHOWN else "")
    display.out.print(f"dropped: {listed}", markup=False)
    display.out.print(f"  · {choice.note}", markup=False)
    found = done.verified
    if found is not None:
        queries = f"{found.queries} {'held-out queries' if found.heldout else 'queries of the run'}"
        size = scale([found.chosen, *found.means.values(), *(each for gain in found.gains.values() for each in (gain.value, gain.lo, gain.hi))])
        title = size.titled(f"Verified on {queries}, {found.seeds} training seeds")
        table = Table("trained on", "value", "gain of what is kept", "95% interval", title=title, box=None)
        for name, words in (("all", "everything"), ("random", "random sets of the same size")):
            if name in found.gains:
                table.add_row(words, size.show(found.means[name]), size.show(found.gains[name].value), _interval(found.gains[name], size))
        table.add_row("what is kept", size.show(found.chosen), "", "")
        display.out.print(table)
        display.out.print(f"  · {found.trained} retrainings here, {found.found} from the store.", markup=False)
    for note in done.notes:
        display.out.print(f"  · {note}", markup=False)
    if done.output is not None:
        display.out.print(f"training set: {done.output} ({done.kept} rows)", markup=False)


def _score(value: float | None, *, signed: bool = True) -> str:
    """A correlation or a share, in thousandths."""
    return Scale(3).show(value, signed=signed)


def _interval(row: Any, size: Scale | None = None, *, signed: bool = True) -> str:
    found = (size or Scale(3)).interval(row.lo, row.hi, signed=signed)
    return "" if found == NONE else escape(found)
