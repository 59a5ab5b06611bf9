"""Commands that read the store: `runs`, `show`, `report`, `sql`. They never start Ray, and they can read a store while a run writes it."""

import sys
from typing import Annotated, Any

import typer

from raysp.commands.run import Json, Store
from raysp.home import store_path

RunId = Annotated[str, typer.Argument(help="A run's id or the beginning of it, its name, or last.")]


def runs(store: Store = None, json: Json = False) -> None:
    """List the runs in the store, newest first."""
    from raysp.commands import display
    from raysp.store import Store as Reader

    with Reader.read(store_path(store)) as reading:
        table = reading.runs()
    _note(reading.note)
    if json:
        display.print_json(table.to_pylist())
    else:
        columns = ("run_id", "status", "lens", "explorer", "model", "n", "r2", "r2_singles", "verdict", "name", "started")
        display.print_table(table.select([name for name in columns if name in table.column_names]))


def show(run_id: RunId, store: Store = None, json: Json = False) -> None:
    """Show the answer of a run."""
    from raysp.commands import display
    from raysp.runs.result import read_result
    from raysp.store import Store as Reader

    with Reader.read(store_path(store)) as reading:
        result = read_result(reading, reading.find_run(run_id))
    _note(reading.note)
    if json:
        display.print_json(display.result_json(result))
    else:
        display.print_result(result)


def report(
    run_id: RunId,
    output: Annotated[str, typer.Option("-o", "--output", help="The HTML file to write.")] = "report.html",
    store: Store = None,
    json: Json = False,
) -> None:
    """Write the report of a run as one self-contained HTML file."""
    from raysp.commands import display
    from raysp.report.page import write_report
    from raysp.store import Store as Reader

    with Reader.read(store_path(store)) as reading:
        found = reading.find_run(run_id)
        write_report(reading, found, output)
    _note(reading.note)
    if json:
        display.print_json({"run_id": found, "report": output})
    else:
        display.out.print(f"report: {output}", markup=False)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT statement. `raysp docs store` describes the tables and views.")],
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",  # noqa: A002  the option's name is the parameter's
    timeout: Annotated[float, typer.Option(help="Interrupt the query after this many seconds.")] = 60.0,
    store: Store = None,
    json: Json = False,
) -> None:
    """Query the store in SQL, read-only: no statement can change it or touch another file."""
    from raysp.commands import display
    from raysp.errors import UserError
    from raysp.store import Store as Reader
    from raysp.store import write_table

    chosen = "json" if json else format
    if chosen not in {"table", "csv", "json", "parquet"}:
        raise UserError("format", chosen, "is not known", "choose one of table, csv, json, parquet")
    with Reader.read(store_path(store)) as reading:
        table = reading.sql(query, timeout_s=timeout)
    _note(reading.note)
    if chosen == "table":
        display.print_table(table)
    else:
        stream: Any = sys.stdout.buffer
        write_table(table, chosen, stream)


def _note(note: str | None) -> None:
    from raysp.commands import display

    if note:
        display.err.print(note, style="dim", markup=False)
