"""Writes pages: data from the store, rendered through a template into one self-contained file."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from raysp.home import local_path
from raysp.output_file import make_folder, write_output
from raysp.report import agreement, energy, figures, grid, layout, pruning, training_sets, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

    from raysp.game import Component
    from raysp.store import Store

Tables = dict[str, list[dict[str, Any]]]

TABLE_ROWS = 12
"""Interactions in the table at first; the others that can be drawn are folded away."""
EXAMPLES = 3
"""Prompts of a prompt set that are shown."""
TABLES = ("singles", "interactions", "validations", "heldout", "costs", "prunings", "cross_checks")
STYLES = ("page.css", "model.css", "training_set.css")
SCRIPTS = ("arcs.js", "graph.js", "queries.js", "page.js")
VERDICTS = ("reliable", "use with care", "do not trust")


def write_report(store: Store, run_id: str, out_path: str | Path) -> Path:
    """Write the page of one run; its path. ValueError for an unknown run, UserError when the file cannot be written."""
    run = store.run_row(run_id)
    tables: Tables = {name: store.run_table(name, run_id).to_pylist() for name in TABLES}
    components = store.components(run["game_id"])
    if not words.of_data(run):
        return _write("run.html.j2", out_path, _run_page(run, tables, components))
    told = training_sets.told(run, {name: store.run_table(name, run_id).to_pylist() for name in training_sets.TABLES}, components)
    tables |= {name: training_sets.named(tables[name]) for name in ("singles", "interactions", "validations", "cross_checks")}
    return _write("run.html.j2", out_path, _run_page(run, tables, training_sets.legible(components), told))


def write_set_report(store: Store, run_ids: Sequence[str], out_path: str | Path) -> Path:
    """Write one page over the runs of an example set; its path. Errors as `write_report`."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        run = store.run_row(run_id)
        interactions = store.run_table("interactions", run_id).slice(0, TABLE_ROWS).to_pylist()
        rows.append(
            run | {"interactions": interactions, "title": run["name"] or run["game"]["source"] or run_id, "kinds": _kinds(store.components(run["game_id"]))}
        )
    return _write("set.html.j2", out_path, _set_page(rows))


def _run_page(run: dict[str, Any], tables: Tables, components: Sequence[Component], trained: training_sets.Told | None = None) -> dict[str, Any]:
    interactions, costs, metrics = tables["interactions"], tables["costs"], run["metrics"] or {}
    effects, kinds = layout.Effects.of(tables["singles"]), _kinds(components)
    for row in interactions:
        row["members"] = [components[i].label for i in row["components"]]
        row["pieces"] = [effects.piece(components[i], components[i].label) for i in row["components"]]
        row["reach"] = grid.reach(components[i] for i in row["components"])
    checks = agreement.checks(metrics, tables["cross_checks"], tables["singles"])
    charts = {
        "singles": figures.single_effects(tables["singles"]),
        "heldout": figures.heldout_scatter(tables["heldout"]),
        "verified": figures.verified_scatter(tables["validations"]),
        "prunings": figures.pruning_curves(tables["prunings"]),
    } | {check["method"]: check["figure"] for check in checks}
    charts |= trained.charts if trained is not None else {}
    return {
        "run": run,
        "described": run["game"]["description"],
        "kinds": kinds,
        "trained": trained,
        "question": words.question(run, kinds),
        "unfinished": words.UNFINISHED.get(run["status"]),
        "no_help": words.help_of_interactions(run),
        "strongest": max(tables["singles"], key=lambda row: abs(row["value"]), default=None),
        "interactions": interactions,
        "table_rows": TABLE_ROWS,
        "examples": EXAMPLES,
        "singles": sorted(tables["singles"], key=lambda row: -abs(row["value"])),
        "energy_bars": energy.bars((run["diagnostics"] or {}).get("by_layer")),
        "prunings": tables["prunings"],
        "checks": checks,
        "assumption": words.assumption(metrics),
        "noise": metrics.get("numeric_noise"),
        "costs": costs,
        "total": {key: sum(row[key] or 0 for row in costs) for key in ("evaluations", "reused", "tokens", "seconds", "wall_seconds")},
        "spec": yaml.safe_dump(run["spec"], sort_keys=False, allow_unicode=True, width=100),
        **_drawing(run, components, effects, interactions, {name: chart for name, chart in charts.items() if chart}),
    }


def _drawing(
    run: dict[str, Any], components: Sequence[Component], effects: layout.Effects, interactions: list[dict[str, Any]], charts: dict[str, figures.Figure]
) -> dict[str, Any]:
    """The layout of the components and what the page's script draws between them: parts of a model by layer, all others as text."""
    arcs = layout.arcs(interactions)
    laid_out = grid.lay_out(components, effects, int(run["game"]["description"].get("heads") or 0)) if words.mechanistic(run) else None
    data: dict[str, Any] = {"arcs": arcs, "shown": layout.SHOWN if laid_out is None else grid.SHOWN, "charts": charts}
    if laid_out is None:
        return {"grid": None, "kept": [], "layout": layout.lay_out(components, effects, run["game"]["source"]), "data": data}
    return {"grid": laid_out, "kept": laid_out.maps, "layout": None, "data": data | {"graph": grid.graph(laid_out, arcs)}}


def _kinds(components: Sequence[Component]) -> list[str]:
    return list(dict.fromkeys(component.kind for component in components))


def _set_page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts, kinds = Counter(row["verdict"] or row["status"] for row in rows), Counter[str]()
    for row in rows:
        kinds.update(each["kind"] for each in row["interactions"] if each["kind"])
    scored = [row for row in rows if row["r2"] is not None and row["r2_singles"] is not None]
    chart = figures.fits_of_runs(rows)
    return {
        "rows": rows,
        "name": next((row["set_name"] for row in rows if row["set_name"]), None),
        "question": words.question(rows[0], rows[0]["kinds"]) if len({words.question(row, row["kinds"]) for row in rows}) == 1 else None,
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
    environment.globals |= {"words": words, "energy": energy, "pruning": pruning, "agreement": agreement}
    return environment


def _write(template: str, out_path: str | Path, content: dict[str, Any]) -> Path:
    from plotly.offline import get_plotlyjs

    own = resources.files("raysp.report").joinpath("templates")
    parts = {name: own.joinpath(name).read_text(encoding="utf-8") for name in (*STYLES, *SCRIPTS)}
    plotly = get_plotlyjs() if content["data"]["charts"] else ""
    page = (
        _environment()
        .get_template(template)
        .render(**content, css="".join(parts[name] for name in STYLES), js="\n".join(parts[name] for name in SCRIPTS), plotly=plotly)
    )
    place = local_path("report", str(out_path))
    if not place.is_symlink():
        make_folder("report", place.parent)
    return write_output("report", place, page.encode())
