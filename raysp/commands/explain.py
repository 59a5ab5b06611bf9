"""The command `explain-game`, which explains masks and values that a user already has. It needs no model, no Ray and no store."""

import io
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pydantic import ValidationError

from raysp.commands.run import Json
from raysp.errors import UserError
from raysp.home import local_path
from raysp.output_file import write_output
from raysp.specs.explorers import IndexName, ProxySPEXOptions

if TYPE_CHECKING:
    from raysp.explorers import ProxySPEX
    from raysp.runs.measurements import Explanation, Measurements

FIELDS = ProxySPEXOptions.model_fields
FORMATS = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


def _help(name: str) -> str:
    """The help of an option that stands for a field of the explorer, with its choices and its default."""
    choices = ", ".join(map(str, get_args(FIELDS[name].annotation)))
    return f"{FIELDS[name].description}" + (f" One of {choices}." if choices else "") + f" Default {FIELDS[name].default}."


def explain_game(
    file: Annotated[str, typer.Argument(help="An npz file with arrays masks (m, n) of 0 and 1, values (m,) and, optionally, labels (n,).")],
    *,
    proxy: Annotated[str | None, typer.Option(help=_help("proxy"), show_default=False)] = None,
    max_order: Annotated[int | None, typer.Option(help=_help("max_order"), show_default=False)] = None,
    index: Annotated[str, typer.Option(help=f"The index in which interactions are reported: {', '.join(get_args(IndexName))}.")] = "bii",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    heldout: Annotated[float, typer.Option(help="Share of the rows held out of the fit to score it on.")] = 0.2,
    top: Annotated[int, typer.Option(help="Rows to show of each table.")] = 10,
    subset: Annotated[int | None, typer.Option(help="Also find the set of this size whose removal changes the value most.")] = None,
    json: Json = False,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Write all effects and interactions to this file: .csv, .json or .parquet.", rich_help_panel="Output")
    ] = None,
) -> None:
    """Explain masks and values that you already have: which components, alone and together, account for the values."""
    from raysp.commands import display
    from raysp.runs.measurements import explain, read_measurements
    from raysp.spectral.indices import check_index

    check_index(index)
    if top < 1:
        raise UserError("top", top, "is not a number of rows", "give an integer from 1")
    form = None if output is None else _form(output)
    explorer = _explorer({"proxy": proxy, "max_order": max_order, "index": index}, seed)
    measured = read_measurements(file)
    if subset is not None and not 0 < subset <= measured.n:
        raise UserError("subset", subset, "is not a number of components that can be removed", f"give 1 to {measured.n}")
    explained = explain(measured, explorer, heldout)
    shown = explained.model.findings.index if index == "bii" else index  # over masks that keep other than half, Banzhaf interactions are weighted
    table = _labelled(explained.model.interactions(shown, explorer.options.max_order, 1), measured.labels)
    if output is not None and form is not None:
        _write(table, form, output)
    told = _told(measured, explained, table, top, subset)
    if json:
        display.print_json(told)
        return
    _print(measured, told)
    if output is not None:
        display.out.print(f"all {table.num_rows:,} rows: {output}", markup=False)


def _explorer(options: dict[str, Any], seed: int) -> "ProxySPEX":
    from raysp.explorers import ProxySPEX

    if seed < 0:
        raise UserError("seed", seed, "is negative", "give an integer from 0")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return ProxySPEX(random_state=seed, **given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        choices = ", ".join(map(str, get_args(FIELDS[name].annotation)))
        remedy = f"choose one of {choices}" if first["type"] == "literal_error" else first["msg"][0].lower() + first["msg"][1:]
        raise UserError(name, first["input"], "is not valid", remedy) from None


def _form(output: str) -> str:
    path = local_path("output", output)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError("output", output, "does not end in a known format", f"use one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UserError("output", output, "is in a folder that does not exist", "create the folder first")
    return FORMATS[suffix]


def _write(table: Any, form: str, output: str) -> None:
    from raysp.store.export import write_table

    content = io.BytesIO()
    write_table(table, form, content)
    write_output("output", output, content.getvalue())


def _labelled(table: Any, labels: tuple[str, ...]) -> Any:
    """The table with a first column of labels, such as `never × fails`."""
    import pyarrow as pa

    words = [" × ".join(labels[i] for i in members) for members in table["components"].to_pylist()]
    return table.add_column(0, "labels", pa.array(words, pa.string()))


def _told(measured: "Measurements", explained: "Explanation", table: Any, top: int, subset: int | None) -> dict[str, Any]:
    """The answer as one JSON object."""
    from raysp.runs.singles import ranked
    from raysp.store.export import plain

    rows = {row["component"]: row for row in explained.model.findings.singles.to_pylist()}
    single = [rows[each.component] for each in ranked(list(rows.values()), measured.labels)[:top]]
    several = [row for row in table.to_pylist() if row["order"] > 1 or row["index"] in {"sv", "bv"}]
    told = {
        "rows": len(measured.values),
        "components": measured.n,
        "fitted": explained.fitted,
        "held_out": explained.held_out,
        "r2": explained.r2,
        "r2_singles": explained.r2_singles,
        "sentences": list(explained.sentences),
        "diagnostics": explained.diagnostics,
        "singles": [{"label": measured.labels[row["component"]], **row} for row in single],
        "interactions": several[:top],
    }
    if subset is not None:
        told["subset"] = _subset(measured, explained, subset)
    return {key: plain(value) for key, value in told.items()}


def _subset(measured: "Measurements", explained: "Explanation", r: int) -> dict[str, Any]:
    """The set of r components whose removal changes the surrogate's value most."""
    from dataclasses import asdict

    import numpy as np

    from raysp.spectral.fourier import FourierSurrogate
    from raysp.spectral.selection import best_subset

    surrogate = explained.model.findings.surrogate
    assert isinstance(surrogate, FourierSurrogate)
    found = best_subset(surrogate, r)
    intact = float(surrogate.predict(np.ones((1, measured.n), dtype=np.bool_))[0])
    return {**asdict(found), "components": list(found.components), "labels": [measured.labels[i] for i in found.components], "intact": intact}


def _print(measured: "Measurements", told: dict[str, Any]) -> None:
    """Print the answer as tables."""
    from raysp.commands import display
    from raysp.runs.singles import ranked

    values = measured.values
    shape = f"{told['rows']:,} evaluations of {told['components']} components; values {values.min():.4g} to {values.max():.4g}"
    display.out.print(f"{shape}; {told['fitted']:,} rows fitted, {told['held_out']:,} held out", markup=False)
    for sentence in told["sentences"]:
        display.out.print(f"  · {sentence}", markup=False)
    display.print_singles(ranked(told["singles"]), {"lens": "function", "game": {"description": {}}})
    if told["interactions"]:
        significant = ["yes" if row["significant"] else "no" for row in told["interactions"]]
        head = ("set", told["interactions"][0]["index"], "95% interval", "significant")
        _print_table("Interactions (significant first, then strongest given their intervals)", head, told["interactions"], significant)
    else:
        display.out.print("No interactions found.")
    if "subset" in told:
        found = told["subset"]
        sure = "no other set of this size changes it more" if found["exact"] else f"another set could change it by up to {found['gap']:.3g} more"
        names = ", ".join(found["labels"])
        display.out.print(
            f"According to the surrogate, removing {names} changes the value most: {found['intact']:.4g} to {found['value']:.4g} ({sure}).", markup=False
        )


def _print_table(title: str, head: tuple[str, ...], rows: list[dict[str, Any]], last: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from raysp.commands import display
    from raysp.report.numbers import scale

    size = scale(row[name] for row in rows for name in ("value", "lo", "hi"))
    display.print_title(size.titled(title))
    table = Table(*head, box=None)
    for row, final in zip(rows, last, strict=True):
        interval = escape(size.interval(row["lo"], row["hi"]))
        table.add_row(escape(row["labels"]), size.show(row["value"]), interval, final)
    display.out.print(table)
