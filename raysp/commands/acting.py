"""What commands that measure for a stored run share: the run that is meant, and the place where it is measured."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raysp.runs.workplace import Workplace

Local = Annotated[bool, typer.Option("--local", help="Measure in this process, without Ray, as is always done for a run that was made with --local.")]


@contextmanager
def acting(path: Path, run_id: str, *, local: bool) -> "Generator[tuple[str, Workplace]]":
    """The id of the run that is meant in the store at `path`, and a workplace whose evaluations it pays for. UserError for an unknown run."""
    from raysp.runtime.engine import workplace
    from raysp.store import Store

    with Store.read(path) as reading:
        found = reading.find_run(run_id)
        here = local or bool(reading.run_row(found)["spec"].get("local"))
    with workplace(path, found, local=here) as place:
        yield found, place
