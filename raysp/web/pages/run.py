"""The page of a run: what happens while it is under way, and its answer once there is one."""

from typing import Any
from urllib.parse import quote

import yaml
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from raysp.errors import UserError
from raysp.report.page import render_run, run_page
from raysp.specs.run import run_spec
from raysp.specs.writing import as_command, as_python, as_yaml
from raysp.store.reading import StoreReader
from raysp.web.looking import TABLES, find, reading, standing, state_row
from raysp.web.pages.rendering import assets, environment, render, shared
from raysp.web.pages.route import PageRoute
from raysp.web.problems import Problem
from raysp.web.site import Site, SiteOf
from raysp.web.what_if import MOST_SIZE, usual_threshold

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: What the tables of a run are called on its page, those of any run first.
TITLES = {
    "interactions": "interactions", "singles": "single effects", "validation": "interactions measured exactly", "heldout": "held-out ablations",
    "evaluations": "evaluations", "components": "components", "costs": "cost by phase", "cross_checks": "other attribution methods", "prunings": "prunings",
    "queries": "queries", "examples": "training examples", "query_scores": "scores by query", "query_singles": "single effects by query",
    "query_interactions": "interactions by query", "query_heldout": "held-out ablations by query", "data_scores": "attribution methods by retraining",
    "selections": "selected training sets",
}  # fmt: skip
#: The formats of the tables, and the largest that one request may have.
FORMATS, MOST_ROWS = ("csv", "parquet", "arrow", "json"), 100_000


@router.get("/runs/{run}")
def page(request: Request, site: SiteOf, run: str) -> Response:
    """The page of a run; any other name of it leads to the one with its id."""
    try:
        with reading(site) as store:
            run_id = find(store, run)
            if run_id != run:
                return RedirectResponse(f"/runs/{quote(run_id, safe='')}", 303)
            row = store.run_row(run_id)
            return _answer(request, store, row) if row["status"] == "done" else _under_way(request, site, row)
    except Problem as problem:
        if problem.status != 404:
            raise
        return render(request, "run_missing.html.j2", 404, wanted=run, problem=str(problem.error))


def _answer(request: Request, store: StoreReader, row: dict[str, Any]) -> Response:
    """The answer of a run that is done: its report, with what can be done with it here."""
    run_id = row["run_id"]
    content = run_page(store, run_id)
    more = {
        "tables": _tables(store, row),
        "formats": FORMATS,
        "most_rows": MOST_ROWS,
        "flip": _flip(row, content),
        "sql": _query(run_id),
        "writings": _writings(row),
    }
    return HTMLResponse(render_run({**content, **more, **shared(request)}, assets=assets("report"), template="run_answer.html.j2", within=environment()))


def _under_way(request: Request, site: Site, row: dict[str, Any]) -> Response:
    """The page of a run without an answer: its script shows what happens."""
    run_id = row["run_id"]
    return render(request, "run_under_way.html.j2", run=row, state=state_row(standing(site, run_id)), sql=_query(run_id), writings=_writings(row))


def _tables(store: StoreReader, row: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The tables of a run that have rows: name, title, and how many."""
    counts = {
        name: store.evaluations_page(row["run_id"], 0, 1)[1] if name == "evaluations" else store.run_table(TABLES[name], row["run_id"]).num_rows
        for name in TITLES
    }
    return [(name, title, counts[name]) for name, title in TITLES.items() if counts[name]]


def _flip(row: dict[str, Any], content: dict[str, Any]) -> dict[str, Any] | None:
    """What the search for the smallest set is asked by default; None for a run without a surrogate."""
    if content["what_if"] is None:
        return None
    return {"threshold": usual_threshold(row), "most": min(MOST_SIZE, row["n"])}


def _query(run_id: str) -> str:
    """A query about a run to begin with."""
    quoted = run_id.replace("'", "''")
    return f"SELECT rank, labels, kind, value, exact FROM interactions WHERE run_id = '{quoted}' ORDER BY rank LIMIT 50"  # noqa: S608  only shown


def _writings(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The forms in which a run's question can be asked again: name, title and text. A question that only Python can ask is shown as it is stored."""
    try:
        spec = run_spec({name: value for name, value in row["spec"].items() if name not in ("store", "local")})
        return [("yaml", "YAML", as_yaml(spec)), ("command", "Command line", as_command(spec)), ("python", "Python", as_python(spec))]
    except UserError:
        return [("yaml", "YAML", yaml.safe_dump(row["spec"], sort_keys=False, allow_unicode=True, width=100))]
