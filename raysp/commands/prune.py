"""Commands around runs on models: `prune`, `compare`, and `task`, which writes prompt sets."""

import json as jsonlib
from dataclasses import asdict
from typing import Annotated, Any

import typer

from raysp.commands.acting import Local, acting
from raysp.commands.consent import AllowPickle, AllowRemoteCode
from raysp.commands.inspect import RunId
from raysp.commands.run import Json, Store
from raysp.commands.where import Server, place
from raysp.errors import UserError
from raysp.home import local_path, store_path
from raysp.output_file import write_output
from raysp.specs.lenses import ModelOptions
from raysp.specs.policy import Consent

METHODS = {
    "interactions": "interactions",
    "refined": "interactions, refined by exact swaps",
    "singles": "singles (LASSO)",
    "singles_refined": "singles (LASSO), refined by exact swaps",
    "top_singles": "strongest singles (exact)",
    "best_of_n": "best of {n} random subsets",
    "intact": "intact model",
}


def prune(
    run_id: RunId,
    *,
    keep: Annotated[float, typer.Option(help="Share of the components to keep.")] = 0.66,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write the pruned model to this new folder, in a format that transformers loads.")
    ] = None,
    heldout: Annotated[str | None, typer.Option(help="Held-out prompts, in the formats of --prompts; by default new prompts of the run's task.")] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Remove the same share from every layer.")] = False,
    best_of: Annotated[int, typer.Option(help="Random subsets to compete with; also the exact evaluations that a refinement by swaps may use.")] = 64,
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    local: Local = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove the components that a mechanistic run found dispensable, and measure the result on held-out prompts.

    The run must ablate by zero or zero-rescale at all positions: nothing else can be written into weights.
    """
    from raysp.actions.prune import prune as act
    from raysp.commands import display

    if not 0 < keep < 1:
        raise UserError("keep", keep, "is not between 0 and 1", "give a share such as 0.66")
    if best_of < 1:
        raise UserError("best_of", best_of, "is not a number of subsets", "give an integer from 1")
    with acting(store_path(store), run_id, local=local) as (found, place):

        def watch(words: str) -> None:
            if not json:
                display.err.print(words, style="dim", markup=False)

        done = act(
            place.store,
            found,
            keep,
            None if output is None else local_path("output", output),
            heldout=heldout,
            per_layer=per_layer,
            draws=best_of,
            backend_of=place.backend_of,
            consent=Consent(allow_pickle, allow_remote_code),
            watch=watch,
        )
    if json:
        rows = [{name: value for name, value in asdict(row).items() if name != "mask"} | {"kept": row.mask.nonzero()[0].tolist()} for row in done.rows]
        display.print_json({"run_id": found, "rows": rows, "written": done.written})
        return
    _print(done, best_of)


def _print(done: Any, best_of: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raysp.commands import display
    from raysp.report.numbers import scale

    columns = ("kept", "chosen by", "exact evaluations", "run's prompts", "held-out prompts", "95% interval")
    size = scale(value for row in done.rows for value in (row.train, row.heldout, row.lo, row.hi))
    table = Table(*columns, title=size.titled(f"Pruned on {done.rows[0].prompts} held-out prompts"), box=None)
    for row in done.rows:
        share = "" if row.method == "intact" else f"{row.mask.sum()} of {len(row.mask)} ({row.keep:.0%})"
        name = METHODS[row.method].format(n=best_of)
        table.add_row(share, name, f"{row.evaluations}", size.show(row.train), size.show(row.heldout), escape(size.interval(row.lo, row.hi)))
    display.out.print(table)
    if done.written is not None:
        gone = done.written["removed"]
        display.out.print(f"{len(gone)} components removed: {', '.join(gone[:12])}{', …' if len(gone) > 12 else ''}", markup=False)
        display.out.print(
            f"model: {done.written['folder']} (loaded again, its value on the run's prompts is {size.whole(done.written['value'])})", markup=False
        )


def compare(
    run_ids: Annotated[list[str], typer.Argument(help="At least two runs: ids or the beginnings of ids, names, or last.", metavar="RUN RUN…")],
    store: Store = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Compare runs, explorers or models by how alike they rank components and which interactions they share."""
    import itertools

    from raysp.commands import display
    from raysp.runs.comparison import compare_runs, comparison_table

    if len(run_ids) < 2:
        raise UserError("run", run_ids[0] if run_ids else None, "cannot be compared alone", "name at least two runs")
    where = place(server, store)
    results = [where.stored(wanted) for wanted in run_ids]
    unfinished = next((result for result in results if result.summary["status"] != "done"), None)
    if unfinished is not None:
        raise UserError("run", unfinished.run_id, f"is {unfinished.summary['status']}", f"finish it first: raysp resume {unfinished.run_id}")
    pairs = [compare_runs(one, other) for one, other in itertools.combinations(results, 2)]
    if json:
        display.print_json({"runs": [result.summary for result in results], "pairs": pairs})
        return
    for result in results:
        row = result.summary
        display.out.print(f"{result.run_id}  {row['model'] or ''} · {row['explorer']} · n = {row['n']} · {row['verdict']}", markup=False)
    display.print_table(comparison_table(pairs))


def task(
    name: Annotated[str, typer.Argument(help="ioi, facts, greater-than or induction.")],
    size: Annotated[int, typer.Option(help="Number of prompts.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    model: Annotated[str, typer.Option(help="Choose words that are single tokens of this model.")] = ModelOptions.model_fields["model"].default,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Write the prompts of a task as JSONL with prompt, target, foil and counterfactual."""
    from raysp.commands import display
    from raysp.datasets.tasks import TASKS, counter, make
    from raysp.models.loading import load_tokenizer
    from raysp.specs.run import resolved_model

    if name not in TASKS:
        raise UserError("task", name, "is not known", f"choose one of {', '.join(TASKS)}")
    if size < 1:
        raise UserError("size", size, "is not a number of prompts", "give an integer from 1")
    questions = make(name, size, seed, counter(load_tokenizer(ModelOptions(model=resolved_model(model)))))
    lines = [jsonlib.dumps(asdict(question), ensure_ascii=False) for question in questions]
    if output is None:
        display.out.print("\n".join(lines), markup=False, soft_wrap=True)
        return
    write_output("output", output, ("\n".join(lines) + "\n").encode())
    display.out.print(f"{len(lines)} prompts: {output}", markup=False)
