"""Commands that ask: `feature`, `mechanistic`, `data`, `run`, `resume`, `plan`."""

from typing import Annotated, Any

import typer

from raysp.commands.options import spec_options
from raysp.home import store_path
from raysp.specs.run import RunSpec, load_spec, run_spec

plan_app = typer.Typer(help="What a run would cost, from a short calibration; nothing is stored.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.", rich_help_panel="Output")]
SpecFile = Annotated[str, typer.Argument(help="A YAML spec, such as jobs/specs/feature.yaml.")]
Store = Annotated[str | None, typer.Option("--store", help="The DuckDB file.")]
ReportPath = Annotated[str | None, typer.Option("--report", help="Write the HTML report here as well.", rich_help_panel="Output")]


@spec_options("feature")
def feature(spec: RunSpec, report: ReportPath = None, json: Json = False) -> None:
    """Ask which parts of a prompt, alone and together, made a model prefer its answer."""
    from raysp.commands.execute import answer

    answer(spec, json=json, report=report)


@spec_options("mechanistic")
def mechanistic(spec: RunSpec, report: ReportPath = None, json: Json = False) -> None:
    """Ask which heads, MLPs and neurons of a model, alone and together, made it answer so or do a task."""
    from raysp.commands.execute import answer

    answer(spec, json=json, report=report)


@spec_options("data")
def data(spec: RunSpec, report: ReportPath = None, json: Json = False) -> None:
    """Ask which training examples, alone and together, made a model that was trained on them answer queries so."""
    from raysp.commands.execute import answer

    answer(spec, json=json, report=report)


def run(
    path: SpecFile,
    store: Store = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    report: ReportPath = None,
    json: Json = False,
) -> None:
    """Run a spec file: the same as flags, all in one place."""
    from raysp.commands.execute import answer

    answer(overridden(load_spec(path), store=store, local=local or None), json=json, report=report)


def resume(run_id: Annotated[str, typer.Argument(help="A run's id, its name, or last.")], store: Store = None, json: Json = False) -> None:
    """Run an interrupted or failed run again: what is stored is not evaluated again."""
    from raysp.commands.execute import answer
    from raysp.store import Store as Reader

    path = store_path(store)
    with Reader.read(path) as reading:
        row = reading.run_row(reading.find_run(run_id))
    answer(overridden(run_spec(row["spec"]), store=str(path)), json=json, run_id=row["run_id"])  # where it is now, not where it began


@plan_app.command("feature")
@spec_options("feature")
def plan_feature(spec: RunSpec, json: Json = False) -> None:
    """What a feature run with these options would cost."""
    from raysp.commands.execute import show_plan

    show_plan(spec, json=json)


@plan_app.command("mechanistic")
@spec_options("mechanistic")
def plan_mechanistic(spec: RunSpec, json: Json = False) -> None:
    """What a mechanistic run with these options would cost."""
    from raysp.commands.execute import show_plan

    show_plan(spec, json=json)


@plan_app.command("data")
@spec_options("data")
def plan_data(spec: RunSpec, json: Json = False) -> None:
    """What a data run with these options would cost; a few subsets are trained to find out."""
    from raysp.commands.execute import show_plan

    show_plan(spec, json=json)


@plan_app.command("run")
def plan_file(path: SpecFile, json: Json = False) -> None:
    """What running a spec file would cost."""
    from raysp.commands.execute import show_plan

    show_plan(load_spec(path), json=json)


def overridden(spec: RunSpec, **changes: Any) -> RunSpec:
    """The spec with those of the changes that say something."""
    return spec.model_copy(update={name: value for name, value in changes.items() if value is not None})
