"""The command line: parse, call, print. A mistake in the input is one line on stderr and exit code 2."""

import sys

import typer

from raysp.commands import curate, docs, explain, housekeeping, inspect, predict, prune, recipes, run, service
from raysp.commands.printable import printable
from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.version import __version__

SERVICE = "Service: runs that go on when the command that submitted them has ended"
app = typer.Typer(
    name="raysp",
    help="Find which components, alone and together, made a language model say that.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(run.feature)
app.command()(run.mechanistic)
app.command()(run.data)
app.command()(run.run)
app.command()(service.resume)
app.add_typer(run.plan_app, name="plan")
app.command()(explain.explain_game)
app.command()(predict.predict)
app.command()(prune.prune)
app.command()(curate.lds)
app.command()(curate.select)
app.command()(recipes.tune_recipe)
app.command()(prune.compare)
app.command()(prune.task)
app.command(rich_help_panel=SERVICE)(service.up)
app.command(rich_help_panel=SERVICE)(service.down)
app.command(rich_help_panel=SERVICE)(service.status)
app.command(rich_help_panel=SERVICE)(service.submit)
app.command(rich_help_panel=SERVICE)(service.watch)
app.command(rich_help_panel=SERVICE)(service.pause)
app.command(rich_help_panel=SERVICE)(service.cancel)
app.command()(inspect.runs)
app.command()(inspect.show)
app.command()(inspect.report)
app.command()(inspect.sql)
app.command()(housekeeping.export)
app.command()(housekeeping.gc)
app.command()(docs.docs)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit.")) -> None:  # pyright: ignore[reportUnusedFunction]  typer calls it
    """Find which components, alone and together, made a language model say that. `raysp docs` shows the documentation."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a value could not be computed, 2 a mistake in the input, 130 interrupted."""
    try:
        sys.exit(app(arguments, standalone_mode=False) or 0)
    except UserError as error:
        _fail(str(error), 2)
    except typer.TyperException as error:  # an unknown option, a missing argument
        _fail(" ".join(error.format_message().split()), 2)
    except EvaluationError as error:
        _fail(str(error), 1)
    except (InterruptedRunError, KeyboardInterrupt, typer.Abort) as error:
        _fail(str(error) or "interrupted", 130)


def _fail(message: str, code: int) -> None:
    if message:  # a command without arguments has shown its help instead
        sys.stderr.write(f"raysp: {printable(message)}\n")
    sys.exit(code)
