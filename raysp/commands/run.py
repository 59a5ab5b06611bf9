"""Commands that ask a question: `feature`, `mechanistic`, `data`, `run`, `plan`."""

from typing import Annotated, Any

import typer

from raysp.commands.options import spec_options
from raysp.commands.where import Server
from raysp.specs.run import RunSpec, load_spec

plan_app = typer.Typer(help="Estimate what a run would cost from a few of its evaluations, which are stored and not paid for again.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.", rich_help_panel="Output")]
SpecFile = Annotated[str, typer.Argument(help="A spec in YAML, such as jobs/specs/feature.yaml.")]
Store = Annotated[str | None, typer.Option("--store", help="The DuckDB file. Default raysp.duckdb in RAYSP_HOME (~/.raysp).")]
ReportPath = Annotated[str | None, typer.Option("--report", help="Also write an HTML report to this file.", rich_help_panel="Output")]


@spec_options("feature")
def feature(spec: RunSpec, report: ReportPath = None, server: Server = None, json: Json = False) -> None:
    """Find which parts of a prompt, alone and together, make a model prefer an answer."""
    from raysp.commands.execute import answer

    answer(spec, server=server, json=json, report=report)


@spec_options("mechanistic")
def mechanistic(spec: RunSpec, report: ReportPath = None, server: Server = None, json: Json = False) -> None:
    """Find which heads, MLPs and neurons, alone and together, make a model give an answer or solve a task."""
    from raysp.commands.execute import answer

    answer(spec, server=server, json=json, report=report)


@spec_options("data")
def data(spec: RunSpec, report: ReportPath = None, server: Server = None, json: Json = False) -> None:
    """Find which training examples, alone and together, make a model trained on them answer queries the way it does."""
    from raysp.commands.execute import answer

    answer(spec, server=server, json=json, report=report)


def run(  # noqa: PLR0917  the options of a command
    path: SpecFile,
    store: Store = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")] = False,
    report: ReportPath = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Run a question from a spec file."""
    from raysp.commands.execute import answer

    answer(overridden(load_spec(path), store=store, local=local or None), server=server, json=json, report=report)


@plan_app.command("feature")
@spec_options("feature")
def plan_feature(spec: RunSpec, server: Server = None, json: Json = False) -> None:
    """Estimate the cost of a feature run."""
    from raysp.commands.execute import show_plan

    show_plan(spec, server=server, json=json)


@plan_app.command("mechanistic")
@spec_options("mechanistic")
def plan_mechanistic(spec: RunSpec, server: Server = None, json: Json = False) -> None:
    """Estimate the cost of a mechanistic run."""
    from raysp.commands.execute import show_plan

    show_plan(spec, server=server, json=json)


@plan_app.command("data")
@spec_options("data")
def plan_data(spec: RunSpec, server: Server = None, json: Json = False) -> None:
    """Estimate the cost of a data run by training on a few subsets."""
    from raysp.commands.execute import show_plan

    show_plan(spec, server=server, json=json)


@plan_app.command("run")
def plan_file(
    path: SpecFile,
    store: Store = None,
    local: Annotated[bool, typer.Option("--local", help="Measure in this process, without Ray.")] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Estimate the cost of a question from a spec file."""
    from raysp.commands.execute import show_plan

    show_plan(overridden(load_spec(path), store=store, local=local or None), server=server, json=json)


def overridden(spec: RunSpec, **changes: Any) -> RunSpec:
    """The spec with the changes that are not None."""
    return spec.model_copy(update={name: value for name, value in changes.items() if value is not None})
