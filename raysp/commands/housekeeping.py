"""Commands that move runs out of the store: `export` copies them, `gc` removes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.commands.run import Json, Store
from raysp.home import store_path

if TYPE_CHECKING:
    from raysp.store import Cleaning


def export(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs by id or the beginning of it, by name, or last.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Export all runs.")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="The folder to make.")] = "export",
    store: Store = None,
    json: Json = False,
) -> None:
    """Write runs as Parquet files, partitioned by run: FOLDER/TABLE/run_id=RUN/data.parquet."""
    from raysp.commands import display
    from raysp.errors import UserError
    from raysp.store import Store as Reader

    if bool(run_ids) == every:
        raise UserError("run", None, "is not given" if not every else "is given beside --all", "name runs, or give --all")
    with Reader.read(store_path(store)) as reading:
        found = [str(run_id) for run_id in reading.runs()["run_id"].to_pylist()] if every else [reading.find_run(wanted) for wanted in run_ids or ()]
        rows = reading.export(list(dict.fromkeys(found)), Path(output).expanduser())
    if json:
        display.print_json({"output": output, "runs": found, "rows": rows})
    else:
        display.out.print(f"{len(found)} runs, {rows.get('evaluations', 0):,} evaluations: {output}", markup=False)


def gc(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs to remove, by id or the beginning of it, by name, or last.")] = None,
    unused: Annotated[bool, typer.Option("--unused", help="Also remove what no run uses, such as the evaluations of plans and recipe searches.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and change nothing.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove runs with what only they used, and give free space in the store's file back to the disk. Without a RUN or --unused it only does the latter."""
    from dataclasses import asdict

    from raysp.commands import display

    cleaned = _cleaned(run_ids or (), store, unused=unused, dry_run=dry_run)
    removal, (before, after) = cleaned.removal, cleaned.sizes or (None, None)
    if json:
        display.print_json({**asdict(removal), "store": cleaned.store, "dry_run": dry_run, "bytes_before": before, "bytes_after": after})
        return
    did = "would remove" if dry_run else "removed"
    kept = f", kept {removal.kept:,} evaluations that other runs use" if removal.kept else ""
    display.out.print(f"{did} {len(removal.runs)} runs with {removal.evaluations:,} evaluations and {removal.games} games{kept}", markup=False)
    if removal.unused:
        display.out.print(f"{removal.unused:,} evaluations are used by no run, but may save a later one; `raysp gc --unused` removes them", markup=False)
    if before is not None and after is not None:
        display.out.print(f"{cleaned.store}: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB now", markup=False)
    elif not dry_run:
        text = "is in use, and what it stores next goes into the free space; `raysp gc` gives it back to the disk once nothing is under way"
        display.out.print(f"{cleaned.store}: {text}", markup=False)


def _cleaned(wanted: Sequence[str], store: str | None, *, unused: bool, dry_run: bool) -> "Cleaning":
    """What is removed from a store: here, or by the service if that has it open or is on another machine."""
    from raysp.errors import UserError
    from raysp.runtime.address import joins_elsewhere, store_is_here
    from raysp.store import Cleaning, compact, missing
    from raysp.store import Store as Writer

    place = store_path(store)
    if not store_is_here(store):
        if not joins_elsewhere():
            raise missing(place)
        from raysp.runtime.client import attached

        with attached() as client:
            return client.remove(wanted, unused=unused, dry_run=dry_run, store=store)
    try:
        writing = Writer.open(place)
    except UserError:
        from raysp.runtime.client import remove_where_open

        cleaned = remove_where_open(place, wanted, unused=unused, dry_run=dry_run)
        if cleaned is None:
            raise
        return cleaned
    with writing:
        found = list(dict.fromkeys(writing.find_run(word) for word in wanted))
        removal = writing.remove_runs(found, unused=unused, dry_run=dry_run)
    return Cleaning(str(place), removal, None if dry_run else compact(place))
