"""Pages of runs: what the templates show of a run, read from the store, and files of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from raysp.game import labels
from raysp.home import local_path
from raysp.output_file import make_folder, write_output
from raysp.report import agreement, energy, figures, grid, layout, packing, readings, training_sets, words
from raysp.report.render import render
from raysp.runs.singles import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from jinja2 import Environment

    from raysp.game import Component
    from raysp.store.reading import StoreReader

Tables = dict[str, list[dict[str, Any]]]

TABLE_ROWS = 12
"""Interactions in the table that is part of the page; all are in the one that its script fills."""
DRAWN = 300
"""Interactions that can be drawn at once."""
EXAMPLES = 3
"""Prompts of a prompt set that are shown."""
TABLES = ("singles", "validations", "heldout", "costs", "prunings", "cross_checks")
VERDICTS = ("reliable", "use with care", "do not trust")


def write_report(store: StoreReader, run_id: str, out_path: str | Path) -> Path:
    """Write the page of one run; its path. ValueError for an unknown run, UserError when the file cannot be written."""
    return _write("run.html.j2", out_path, run_page(store, run_id))


def write_set_report(store: StoreReader, run_ids: Sequence[str], out_path: str | Path) -> Path:
    """Write one page over the runs of an example set; its path. Errors as `write_report`."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        run = store.run_row(run_id)
        interactions = store.run_table("interactions", run_id).slice(0, TABLE_ROWS).to_pylist()
        rows.append(
            run | {"interactions": interactions, "title": run["name"] or run["game"]["source"] or run_id, "kinds": _kinds(store.components(run["game_id"]))}
        )
    return _write("set.html.j2", out_path, _set_page(rows))


def run_page(store: StoreReader, run_id: str) -> dict[str, Any]:
    """What the template `run.html.j2` shows of a run. ValueError for an unknown run."""
    run = store.run_row(run_id)
    tables: Tables = {name: store.run_table(name, run_id).to_pylist() for name in TABLES}
    components, interactions = store.components(run["game_id"]), store.run_table("interactions", run_id)
    told: training_sets.Told | None = None
    if words.of_data(run):
        told = training_sets.told(run, {name: store.run_table(name, run_id).to_pylist() for name in training_sets.TABLES}, components)
        tables |= {name: training_sets.named(tables[name]) for name in ("singles", "validations", "cross_checks")}
        components = training_sets.legible(components)
    return _content(run, tables, components, interactions, told) | {"what_if": packing.what_if(store, run)}


def render_run(content: dict[str, Any], *, assets: str | None = None, template: str = "run.html.j2", within: Environment | None = None) -> str:
    """The page of a run from `run_page` and whatever its template needs besides: one file, or with links into `assets`; see `render`."""
    return render(template, content, assets=assets, within=within)


def _content(
    run: dict[str, Any], tables: Tables, components: Sequence[Component], interactions: pa.Table, trained: training_sets.Told | None
) -> dict[str, Any]:
    costs, metrics = tables["costs"], run["metrics"] or {}
    singles, kinds = ranked(tables["singles"]), _kinds(components)
    effects = layout.Effects.of(singles, words.at_intact(run))
    checks = agreement.checks(metrics, tables["cross_checks"], tables["singles"])
    charts = {
        "singles": figures.single_effects(singles, words.at_intact(run)),
        "heldout": figures.heldout_scatter(tables["heldout"]),
        "verified": figures.verified_scatter(tables["validations"]),
        "prunings": figures.pruning_curves(tables["prunings"]),
    } | {check["method"]: check["figure"] for check in checks}
    charts |= trained.charts if trained is not None else {}
    rows = [_row(row, components, effects) for row in interactions.slice(0, TABLE_ROWS).to_pylist()]
    return {
        "run": run,
        "described": run["game"]["description"],
        "kinds": kinds,
        "trained": trained,
        "noun": words.parts(kinds) if words.mechanistic(run) else f"{run['game']['description'].get('unit') or 'component'}s",
        "question": words.question(run, kinds),
        "unfinished": words.UNFINISHED.get(run["status"]),
        "no_help": words.help_of_interactions(run),
        "strongest": singles[0] if singles else None,
        "interactions": rows,
        "found": interactions.num_rows,
        "index": run["index"] or (rows[0]["index"] if rows else None),
        "orders": sorted(set(interactions["order"].to_pylist())),
        "any_weak": not all(interactions["significant"].to_pylist()),
        "examples": EXAMPLES,
        "verified": len(tables["validations"]),
        "verified_shown": figures.VERIFIED,
        "singles": singles,
        "effects": effects,
        "readings": readings,
        "energy_bars": energy.bars((run["diagnostics"] or {}).get("by_layer")),
        "prunings": tables["prunings"],
        "checks": checks,
        "assumption": words.assumption(metrics),
        "noise": metrics.get("numeric_noise"),
        "costs": costs,
        "total": {key: sum(row[key] or 0 for row in costs) for key in ("evaluations", "reused", "tokens", "seconds", "wall_seconds")},
        "spec": yaml.safe_dump(run["spec"], sort_keys=False, allow_unicode=True, width=100),
        "charts": {name: chart for name, chart in charts.items() if chart},
        **_drawing(run, components, effects, interactions, listed=trained is None or trained.listed),
    }


def _row(row: dict[str, Any], components: Sequence[Component], effects: layout.Effects) -> dict[str, Any]:
    """An interaction with its members as the table shows them."""
    members = [components[i] for i in row["components"]]
    return row | {
        "members": [component.label for component in members],
        "labels": labels(components, row["components"]),
        "pieces": [effects.piece(component, component.label) for component in members],
        "reach": grid.reach(members),
    }


def _drawing(run: dict[str, Any], components: Sequence[Component], effects: layout.Effects, interactions: pa.Table, *, listed: bool) -> dict[str, Any]:
    """The layout of the components and what the page's script draws between them: parts of a model by layer, all others as text."""
    laid_out = grid.lay_out(components, effects, int(run["game"]["description"].get("heads") or 0)) if words.mechanistic(run) else None
    data: dict[str, Any] = {
        "components": packing.components(components, effects),
        "interactions": packing.interactions(interactions, run["index"], len(components)),
        "shown": min(layout.SHOWN if laid_out is None else grid.SHOWN, interactions.num_rows),
        "drawn": DRAWN,
    }
    if laid_out is None:
        laid_out_text = layout.lay_out(components, effects, run["game"]["source"])
        return {"grid": None, "kept": [], "layout": laid_out_text, "layout_shown": listed, "drawing": data}
    members = set(interactions["components"].combine_chunks().flatten().to_pylist())
    return {"grid": laid_out, "kept": laid_out.maps, "layout": None, "layout_shown": False, "drawing": data | {"graph": grid.graph(laid_out, members)}}


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
        "charts": {"fits": chart} if chart else {},
        "drawing": None,
        "what_if": None,
    }


def _write(template: str, out_path: str | Path, content: dict[str, Any]) -> Path:
    place = local_path("report", str(out_path))
    page = render(template, content)
    if not place.is_symlink():
        make_folder("report", place.parent)
    return write_output("report", place, page.encode())
