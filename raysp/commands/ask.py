"""Commands that ask: `feature`, `run`, `resume`, `plan`."""

import json as json_library
from typing import Annotated, Any

import typer

from raysp.commands.options import spec_options
from raysp.home import store_path
from raysp.spec import RunSpec, load_spec, run_spec

plan_app = typer.Typer(help="What a run would cost, from a short calibration; nothing is stored.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.", rich_help_panel="Output")]
SpecFile = Annotated[str, typer.Argument(help="A YAML spec, such as jobs/feature.yaml.")]
Store = Annotated[str | None, typer.Option("--store", help="The DuckDB file.")]
ReportPath = Annotated[str | None, typer.Option("--report", help="Write the HTML report here as well.", rich_help_panel="Output")]


@spec_options
def feature(spec: RunSpec, report: ReportPath = None, json: Json = False) -> None:
    """Ask which parts of a prompt, alone and together, made a model prefer its answer."""
    answer(spec, json=json, report=report)


def run(
    path: SpecFile,
    store: Store = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    report: ReportPath = None,
    json: Json = False,
) -> None:
    """Run a spec file: the same as flags, all in one place."""
    answer(overridden(load_spec(path), store=store, local=local or None), json=json, report=report)


def resume(run_id: Annotated[str, typer.Argument(help="A run's id, its name, or last.")], store: Store = None, json: Json = False) -> None:
    """Run an interrupted or failed run again: what is stored is not evaluated again."""
    from raysp.store import Store as Reader

    with Reader.read(store_path(store)) as reading:
        row = reading.run_row(reading.find_run(run_id))
    answer(overridden(run_spec(json_library.loads(row["spec"])), store=store), json=json, run_id=row["run_id"])


@plan_app.command("feature")
@spec_options
def plan_feature(spec: RunSpec, json: Json = False) -> None:
    """What a feature run with these options would cost."""
    show_plan(spec, json=json)


@plan_app.command("run")
def plan_file(path: SpecFile, json: Json = False) -> None:
    """What running a spec file would cost."""
    show_plan(load_spec(path), json=json)


def overridden(spec: RunSpec, **changes: Any) -> RunSpec:
    """The spec with those of the changes that say something."""
    return spec.model_copy(update={name: value for name, value in changes.items() if value is not None})


def answer(spec: RunSpec, *, json: bool, report: str | None = None, run_id: str | None = None) -> None:
    """Run all that a spec asks for and print it."""
    from raysp.commands import display
    from raysp.comparison import compare, comparison_text, set_summary
    from raysp.engine import parts, run_parts
    from raysp.report import write_report, write_set_report
    from raysp.store import Store as Reader

    wanted = parts(spec)
    several = len(wanted) > 1
    results: list[Any] = []
    with display.live_bar(quiet=json) as bar:
        tell = (lambda i, progress: bar(f"{wanted[i].label}: " if several else "", progress)) if not json else None
        for part, result in run_parts(wanted, watch=tell, set_name=spec.name or spec.examples if spec.examples else None, run_id=run_id):
            results.append((part, result))
            if not json:
                display.print_result(result)
    told: dict[str, Any] = display.result_json(results[0][1]) if not several else {"runs": [display.result_json(result) for _, result in results]}
    if spec.examples:
        told["set"] = set_summary([result for _, result in results])
    elif several:
        told["comparisons"] = [{"with": part.label, **compare(results[0][1], other)} for part, other in results[1:]]
    if report:
        with Reader.read(store_path(spec.store)) as reading:
            ids = [result.run_id for _, result in results]
            (write_set_report(reading, ids, report) if spec.examples else write_report(reading, ids[0], report))
    if json:
        display.print_json(told)
        return
    for comparison in told.get("comparisons", ()):
        display.out.print(comparison_text(comparison))
    if "set" in told:
        display.print_set(told["set"])
    if report:
        display.out.print(f"report: {report}")


def show_plan(spec: RunSpec, *, json: bool) -> None:
    """Print a plan."""
    from raysp.commands import display
    from raysp.engine import parts
    from raysp.planning import plan_run, plan_text

    wanted = parts(spec)
    plan = plan_run(wanted[0].spec)
    if len(wanted) > 1:
        plan["runs"] = len(wanted)
    if json:
        display.print_json(plan)
        return
    display.out.print(plan_text(plan))
    if len(wanted) > 1:
        display.out.print(f"There are {len(wanted)} such runs; the plan is that of the first.")
