"""Writing pages: data from the store, through a template, into one file that needs no other."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from raysp.errors import UserError
from raysp.report import figures, layout, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

    from raysp.store import Store

TABLE_ROWS = 12
"""Interactions in the table at first; the others that can be drawn unfold."""
VERDICTS = ("reliable", "use with care", "do not trust")


def write_report(store: Store, run_id: str, out_path: str | Path) -> Path:
    """Write the page of one run; its path. ValueError for an unknown run, UserError when the file cannot be written."""
    run = store.run_row(run_id)
    tables = {name: store.run_table(name, run_id).to_pylist() for name in ("singles", "interactions", "validations", "heldout", "costs")}
    components = store.components(run["game_id"])
    for row in tables["interactions"]:
        row["members"] = [components[i].label for i in row["components"]]
    return _write("run.html.j2", out_path, _run_page(run, tables, layout.lay_out(components, tables["singles"], run["game"]["source"])))


def write_set_report(store: Store, run_ids: Sequence[str], out_path: str | Path) -> Path:
    """Write one page over the runs of an example set; its path. Errors as `write_report`."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        run = store.run_row(run_id)
        interactions = store.run_table("interactions", run_id).slice(0, TABLE_ROWS).to_pylist()
        rows.append(run | {"interactions": interactions, "title": run["name"] or run["game"]["source"] or run_id})
    return _write("set.html.j2", out_path, _set_page(rows))


def _run_page(run: dict[str, Any], tables: dict[str, list[dict[str, Any]]], laid_out: layout.Layout) -> dict[str, Any]:
    interactions, costs = tables["interactions"], tables["costs"]
    charts = {
        "singles": figures.single_effects(tables["singles"]),
        "heldout": figures.heldout_scatter(tables["heldout"]),
        "verified": figures.verified_scatter(tables["validations"]),
    }
    return {
        "run": run,
        "described": run["game"]["description"],
        "question": words.question(run),
        "unfinished": words.UNFINISHED.get(run["status"]),
        "no_help": words.help_of_interactions(run),
        "strongest": max(tables["singles"], key=lambda row: abs(row["value"]), default=None),
        "layout": laid_out,
        "interactions": interactions,
        "table_rows": TABLE_ROWS,
        "singles": sorted(tables["singles"], key=lambda row: -abs(row["value"])),
        "assumption": words.assumption(run["metrics"] or {}),
        "costs": costs,
        "total": {key: sum(row[key] or 0 for row in costs) for key in ("evaluations", "reused", "tokens", "seconds", "wall_seconds")},
        "spec": yaml.safe_dump(run["spec"], sort_keys=False, allow_unicode=True, width=100),
        "data": {"arcs": layout.arcs(interactions), "shown": layout.SHOWN, "charts": {name: chart for name, chart in charts.items() if chart}},
    }


def _set_page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts, kinds = Counter(row["verdict"] or row["status"] for row in rows), Counter[str]()
    for row in rows:
        kinds.update(each["kind"] for each in row["interactions"] if each["kind"])
    scored = [row for row in rows if row["r2"] is not None and row["r2_singles"] is not None]
    chart = figures.fits_of_runs(rows)
    return {
        "rows": rows,
        "name": next((row["set_name"] for row in rows if row["set_name"]), None),
        "question": words.question(rows[0]) if len({words.question(row) for row in rows}) == 1 else None,
        "verdicts": sorted(verdicts.items(), key=lambda item: (item[0] not in VERDICTS, VERDICTS.index(item[0]) if item[0] in VERDICTS else 0)),
        "kinds": kinds.most_common(),
        "scored": len(scored),
        "r2": median(row["r2"] for row in scored) if scored else None,
        "r2_singles": median(row["r2_singles"] for row in scored) if scored else None,
        "gained": sum(row["r2"] - row["r2_singles"] >= words.WORTHWHILE for row in scored),
        "data": {"arcs": [], "shown": 0, "charts": {"fits": chart} if chart else {}},
    }


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment: Any = Environment(loader=PackageLoader("raysp.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["words"] = words
    return environment


def _write(template: str, out_path: str | Path, content: dict[str, Any]) -> Path:
    from plotly.offline import get_plotlyjs

    own = resources.files("raysp.report").joinpath("templates")
    parts = {name: own.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    plotly = get_plotlyjs() if content["data"]["charts"] else ""
    page = _environment().get_template(template).render(**content, css=parts["page.css"], js=parts["page.js"], plotly=plotly)
    return _put(page, Path(out_path).expanduser())


def _put(page: str, path: Path) -> Path:
    """The whole file or none: it is written aside and moved into place."""
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".html", delete=False) as file:
            draft = Path(file.name)
            file.write(page)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as error:
        if draft is not None:
            draft.unlink(missing_ok=True)
        raise UserError("report", str(path), f"cannot be written ({error.strerror})", "name a file in a folder that you may write to, with -o") from None
    return path
