"""Commands that move runs out of the store: `export` copies them, `gc` removes them."""

from pathlib import Path
from typing import Annotated

import typer

from raysp.commands.run import Json, Store
from raysp.home import store_path


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and change nothing.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove runs with what only they used, and give free space in the store's file back to the disk. Without a RUN it only does the latter."""
    from dataclasses import asdict

    from raysp.commands import display
    from raysp.store import Store as Writer
    from raysp.store import compact, missing

    place = store_path(store)
    if not place.exists():
        raise missing(place)
    with Writer.open(place) as writing:
        removal = writing.remove_runs(list(dict.fromkeys(writing.find_run(wanted) for wanted in run_ids or ())), dry_run=dry_run)
    before, after = (None, None) if dry_run else compact(place)
    if json:
        display.print_json({**asdict(removal), "dry_run": dry_run, "bytes_before": before, "bytes_after": after})
        return
    did = "would remove" if dry_run else "removed"
    kept = f", kept {removal.kept:,} evaluations that other runs use" if removal.kept else ""
    display.out.print(f"{did} {len(removal.runs)} runs with {removal.evaluations:,} evaluations and {removal.games} games{kept}", markup=False)
    if before is not None and after is not None:
        display.out.print(f"{place}: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB now", markup=False)
