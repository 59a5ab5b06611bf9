"""The command line: parse, call, print. A mistake in the input is one line on stderr and exit code 2, and an unforeseen error one line and exit code 1."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from raysp.commands import curate, docs, explain, housekeeping, inspect, job, predict, prune, recipes, run, service
from raysp.commands.printable import printable
from raysp.commands.where import here_only
from raysp.errors import EvaluationError, InterruptedRunError, JobError, UserError
from raysp.version import __version__

SERVICE = "Service: runs that go on when the command that submitted them has ended"
#: The environment variable with which an unforeseen error keeps its traceback.
TRACEBACK = "RAYSP_TRACEBACK"

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
app.command()(here_only(prune.prune))
app.command()(here_only(curate.lds))
app.command()(here_only(curate.select))
app.command()(here_only(recipes.tune_recipe))
app.command()(prune.compare)
app.command()(prune.task)
app.command(rich_help_panel=SERVICE)(here_only(service.up, ignores_environment=True))
app.command(rich_help_panel=SERVICE)(here_only(service.down, ignores_environment=True))
app.command(rich_help_panel=SERVICE)(service.status)
app.command(rich_help_panel=SERVICE)(service.token)
app.command(rich_help_panel=SERVICE)(service.submit)
app.command(rich_help_panel=SERVICE)(service.watch)
app.command(rich_help_panel=SERVICE)(service.pause)
app.command(rich_help_panel=SERVICE)(service.cancel)
app.command(hidden=True)(job.job)
app.command()(inspect.runs)
app.command()(inspect.show)
app.command()(inspect.report)
app.command()(inspect.sql)
app.command()(here_only(housekeeping.export))
app.command()(here_only(housekeeping.gc))
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
    _accept_any_text()
    try:
        _check_encoding(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments, standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        _fail(str(error), 2)
    except typer.TyperException as error:  # an unknown option, a missing argument
        _fail(" ".join(error.format_message().split()), 2)
    except (EvaluationError, JobError) as error:
        _fail(str(error), error.code if isinstance(error, JobError) else 1)
    except (InterruptedRunError, KeyboardInterrupt, typer.Abort) as error:
        _fail(str(error) or "interrupted", 130)
    except BrokenPipeError:  # as in `raysp runs | head`
        _discard_output()
        sys.exit(1)
    except MemoryError:
        _fail("memory is full; ask for less at once, or use a machine with more memory", 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _discard_output()
            _fail(f"the disk is full ({error})", 1)
        if os.environ.get(TRACEBACK):
            raise
        _fail(_defect(error), 1)


def _accept_any_text() -> None:
    """Print what the encoding of a terminal or a pipe lacks as an escape instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_encoding(arguments: Sequence[str]) -> None:
    for number, argument in enumerate(arguments, 1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UserError(f"argument {number}", ascii(argument), "is not valid UTF-8", "set a UTF-8 locale, or convert it")


def _discard_output() -> None:
    """Send what is left of stdout nowhere, so that Python does not fail again as it flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _defect(error: Exception) -> str:
    """One line about an error that raysp did not foresee: what it is, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first = (str(error).strip().splitlines() or [""])[0][:200]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"internal error: {type(error).__name__}: {first} ({where}); please report it, with the traceback that {TRACEBACK}=1 shows"


def _fail(message: str, code: int) -> None:
    if message:  # a command without arguments has shown its help instead
        sys.stderr.write(f"raysp: {printable(message)}\n")
    sys.exit(code)
