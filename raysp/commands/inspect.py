"""Commands that read the store: `runs`, `show`, `report`, `sql`. They never start Ray, and they can read a store while a run writes it.

`sql` asks the service about a store that is not here.
"""

import io
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysp.commands.run import Json, Store
from raysp.commands.where import Server, place

if TYPE_CHECKING:
    from raysp.runs.state import RunState

RunId = Annotated[str, typer.Argument(help="A run's id or the beginning of it, its name, or last.")]


def runs(store: Store = None, server: Server = None, json: Json = False) -> None:
    """List the runs in the store, newest first."""
    import pyarrow as pa

    from raysp.commands import display

    found = place(server, store).runs()
    if json:
        display.print_json([row | _submission(state) for row, state in found])
        return
    columns = ("run_id", "status", "done", "lens", "explorer", "model", "n", "r2", "r2_singles", "verdict", "name", "started")
    rows = [row | {"done": _percent(state)} for row, state in found]
    display.print_table(pa.table({name: [row.get(name) for row in rows] for name in columns}))


def _submission(state: "RunState") -> dict[str, Any]:
    """What the JSON of a run has about the service that executes it."""
    progress = None if state.progress is None else asdict(state.progress)
    return {"desired": state.desired, "priority": state.priority, "position": state.position, "progress": progress}


def _percent(state: "RunState") -> str:
    """The share of a run's evaluations that are done, while a service executes it or has stopped doing so."""
    progress = state.progress
    return "" if state.status == "done" or progress is None or not progress.total else f"{progress.done / progress.total:.0%}"


def show(run_id: RunId, store: Store = None, server: Server = None, json: Json = False) -> None:
    """Show the answer of a run."""
    from raysp.commands import display

    result = place(server, store).stored(run_id)
    if json:
        display.print_json(display.result_json(result))
    else:
        display.print_result(result)


def report(
    run_id: RunId,
    output: Annotated[str, typer.Option("-o", "--output", help="The HTML file to write.")] = "report.html",
    store: Store = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Write the report of a run as one self-contained HTML file."""
    from raysp.commands import display

    found = place(server, store).write_report(run_id, output)
    if json:
        display.print_json({"run_id": found, "report": output})
    else:
        display.out.print(f"report: {output}", markup=False)


#: Rows and bytes that a format shows unless --limit says otherwise: what can be printed in about a second.
SHOWN = {"table": (1_000, 16 << 20), "csv": (100_000, 64 << 20), "json": (100_000, 64 << 20), "parquet": (1_000_000, 512 << 20)}


def sql(  # noqa: PLR0917  the options of a command
    query: Annotated[str, typer.Argument(help="One SELECT statement. `raysp docs store` describes the tables and views.")],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",  # noqa: A002  the option's name is the parameter's
    timeout: Annotated[float, typer.Option(help="Interrupt the query after this many seconds.")] = 60.0,
    limit: Annotated[
        int | None, typer.Option(help="Show at most this many rows. Default 1,000 in a table, 100,000 as csv or json, 1,000,000 as parquet.")
    ] = None,
    store: Store = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Query the store in SQL, read-only: no statement can change it or touch another file. A store of a service on another machine is queried there."""
    from raysp.commands import display
    from raysp.errors import UserError
    from raysp.store import Limits

    chosen = "json" if json else format
    if chosen not in SHOWN:
        raise UserError("format", chosen, "is not known", f"choose one of {', '.join(SHOWN)}")
    rows, size = SHOWN[chosen]
    answer = place(server, store).sql(query, Limits(timeout, rows if limit is None else limit, size))
    display.note(answer.note)
    if chosen == "table":
        display.print_table(answer.table)
    else:
        _write(answer.table, chosen)
    if answer.truncated:
        display.note(f"these are the first {answer.table.num_rows:,} rows; --limit sets how many are shown, and raysp export writes whole runs")


def _write(table: Any, form: str) -> None:
    from raysp.commands.printable import printable
    from raysp.store import write_table

    content = io.BytesIO()
    write_table(table, form, content)
    shown = printable(content.getvalue().decode()).encode() if form != "parquet" and sys.stdout.isatty() else content.getvalue()
    left = memoryview(shown)
    while left:  # an unbuffered stdout (PYTHONUNBUFFERED) may take less than it is given
        left = left[sys.stdout.buffer.write(left) :]
    sys.stdout.buffer.flush()
