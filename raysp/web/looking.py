"""Routes that look at runs: the list, one run, and the tables of its answer. They read the store and the tail, and never ask the scheduler."""

import base64
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response

from raysp.errors import UserError
from raysp.runs.state import RunState
from raysp.runs.state import state as stored_state
from raysp.store import surrogates
from raysp.store.answers import RUN_TABLES
from raysp.store.failures import no_surrogate
from raysp.store.reading import StoreReader
from raysp.web.formats import ROWS, TABLE_RESPONSES, FormatOf, LimitOf, OffsetOf, table_response, tagged, wanted_format, with_next
from raysp.web.problems import Problem, json_response, not_found
from raysp.web.schemas import Listed, Run, Schema
from raysp.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["runs"])

#: The tables of a run by their names here: `validation` is called so in Python too, and `events` are a stream.
TABLES = {"validation": "validations", "log": "events", "evaluations": "evaluations"} | {
    name: name for name in RUN_TABLES if name not in ("events", "validations")
}
#: Runs of a page.
PAGE, MOST_PAGE = 50, 1_000
#: What the state of a run adds to its row.
SUBMISSION = ("desired", "priority", "position", "progress")


@router.get("/runs", response_model=Listed, summary="List runs, newest first")
def runs(  # noqa: PLR0917  filters of a list
    request: Request,
    site: SiteOf,
    limit: Annotated[int, Query(ge=1, le=MOST_PAGE)] = PAGE,
    offset: OffsetOf = 0,
    status: Annotated[str | None, Query(description="queued, running, paused, cancelled, interrupted, failed or done; several separated by commas.")] = None,
    lens: Annotated[str | None, Query()] = None,
    model: Annotated[str | None, Query()] = None,
    verdict: Annotated[str | None, Query()] = None,
    set_name: Annotated[str | None, Query(alias="set", description="The set of examples that runs belong to.")] = None,
    text: Annotated[str | None, Query(alias="q", description="Part of the id, name, model or strongest interaction.")] = None,
) -> Response:
    """Rows of the view `run_summary` with where each run stands: `desired`, `priority`, `position` in the queue and `progress`."""
    found = run_rows(site)
    exact = {"lens": lens, "model": model, "verdict": verdict, "set_name": set_name}
    wanted = {name: value for name, value in exact.items() if value is not None}
    statuses = None if status is None else set(status.split(","))
    chosen = [
        row
        for row in found
        if all(row.get(name) == value for name, value in wanted.items())
        and (statuses is None or row["status"] in statuses)
        and (text is None or any(text.lower() in str(row.get(name) or "").lower() for name in ("run_id", "name", "model", "strongest", "set_name")))
    ]
    page, after = chosen[offset : offset + limit], offset + limit
    response = json_response({"runs": page, "total": len(chosen), "next": after if after < len(chosen) else None})
    return with_next(request, response, after) if after < len(chosen) else response


def run_rows(site: Site) -> list[dict[str, Any]]:
    """All runs, newest first, with what the tail knows of them."""
    known = {state.run_id: state for state in site.tail.states()}
    try:
        with site.readings.reading(site.since()) as store:
            found, stored = site.lists.of(store)
    except UserError:
        if site.settings.store.exists():
            raise
        return []  # a service that has not been asked anything yet
    return [{**row, **_standing(stored.get(row["run_id"], {}), known.get(row["run_id"]))} for row in found]


def _standing(stored: Mapping[str, Any], state: RunState | None) -> dict[str, Any]:
    """Where a run stands: as the tail knows it, otherwise as the store has it."""
    if state is not None:
        return state_row(state)
    progress = json.loads(stored["progress"]) if stored.get("progress") else None
    return {**{name: stored.get(name) for name in SUBMISSION}, "progress": progress}


def state_row(state: RunState) -> dict[str, Any]:
    """A state as JSON has it."""
    return asdict(state)


def standing(site: Site, run_id: str) -> RunState:
    """Where a run stands: as the tail knows it, otherwise, of one that ended long ago, as the store has it."""
    found = site.tail.state(run_id)
    if found is None:
        with reading(site) as store:
            found = stored_state(store, run_id)
    return found


def find(store: StoreReader, wanted: str) -> str:
    """The id of the run that a path names: its id or the beginning of it, its name, or last. Problem 404 if there is none."""
    try:
        return store.find_run(wanted)
    except UserError as error:
        raise not_found(error) from None


def known_id(site: Site, wanted: str) -> str:
    """As `find`, for routes that read nothing else; a run that the tail knows by its id needs no store."""
    if site.tail.state(wanted) is not None:
        return wanted
    with reading(site) as store:
        return find(store, wanted)


def reading(site: Site) -> AbstractContextManager[StoreReader]:
    """The store, as new as what the tail knows. Problem 404 where there is none yet."""
    if not site.settings.store.exists():
        raise not_found(UserError("run", None, "is not known: nothing has been asked yet", "submit a question first"))
    return site.readings.reading(site.since())


@router.get("/runs/{run}", response_model=Run, summary="One run: its row, question, verdict and state")
def run(request: Request, site: SiteOf, run: str) -> Response:
    """The run's row with its spec, the reasons of its verdict, metrics, the description of its game, and where it stands."""
    with reading(site) as store:
        run_id = find(store, run)
        row = store.run_row(run_id)
        costs = store.run_table("costs", run_id).to_pylist()
    return tagged(request, json_response(with_state(row | {"costs": costs}, site.tail.state(run_id))))


def with_state(row: Mapping[str, Any], state: RunState | None) -> dict[str, Any]:
    """A run's row with its state. Its status is that of the state, as in every other answer: the store may have heard of an end a moment before the tail."""
    return {**row, "state": None} if state is None else {**row, "status": state.status, "state": state_row(state)}


@router.get("/runs/{run}/outputs", summary="The output of every query in a run's evaluations", responses=TABLE_RESPONSES)
def outputs(  # noqa: PLR0917  a page of a table
    request: Request, site: SiteOf, run: str, form: FormatOf = None, limit: LimitOf = ROWS, offset: OffsetOf = 0
) -> Response:
    """A list of outputs for each evaluation, in the order of `evaluations`; it is empty in runs without queries."""
    wanted = wanted_format(request, form)
    with reading(site) as store:
        run_id = find(store, run)
        check_begun(store, run_id)
        found = store.run_outputs(run_id)
    values = found[offset : offset + limit]
    page = pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]), pa.array(values.reshape(-1)))
    return table_response(request, pa.table({"outputs": page}), wanted, name=f"{run_id}-outputs", total=len(found), offset=offset)


#: The parts of a surrogate as tables.
PARTS = {"terms": surrogates.terms, "points": surrogates.points, "tails": surrogates.tails}


@router.get("/runs/{run}/surrogate", summary="The surrogate of a run", responses=TABLE_RESPONSES)
def surrogate(  # noqa: PLR0917  FastAPI's parameters
    request: Request,
    site: SiteOf,
    run: str,
    form: FormatOf = None,
    query: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    part: Annotated[Literal["terms", "points", "tails"], Query(description="What of the surrogate to return.")] = "terms",
) -> Response:
    """Its terms, all at once: `components` and `coefficient`, with `standard_error` or a row of the covariance's `factor` where there is one.

    A surrogate may hold more than its terms: `points`, the residuals of measured values that are written into it (`mask` in packed bits, base64 in JSON), and `tails`,
    sums over sets of all orders around measured masks. The store's README describes their columns.

    `basis` is P(keep) of the basis in which they are, `keep_probability` that of the masks on which the surrogate was scored; Arrow has them in its schema.
    """
    wanted = wanted_format(request, form)
    with reading(site) as store:
        run_id = find(store, run)
        if not store.has_surrogate(run_id):
            raise not_found(no_surrogate(run_id))
        found, keep = store.surrogate(run_id, query), store.keep_probability(run_id)
    about = {"n": found.n, "basis": found.keep_probability, "keep_probability": keep}
    terms = PARTS[part](found)
    if wanted == "json":
        shown = terms.select(["components", "coefficient", "standard_error"]) if part == "terms" else terms
        rows = [{name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in row.items()} for row in shown.to_pylist()]
        return tagged(request, json_response({"run_id": run_id, "query": query, **about, "rows": rows, "total": len(rows), "next": None}))
    return table_response(
        request, terms.replace_schema_metadata({name: repr(value) for name, value in about.items()}), wanted, name=f"{run_id}-surrogate-{part}"
    )


@router.get("/runs/{run}/{table}", summary="A table of a run's answer", responses=TABLE_RESPONSES)
def table(  # noqa: PLR0917  a page of a table
    request: Request, site: SiteOf, run: str, table: str, form: FormatOf = None, limit: LimitOf = ROWS, offset: OffsetOf = 0, phase: str | None = None
) -> Response:
    """Rows of one of the run's tables, as the store has them (`GET /api/v1/schema` describes them); `phase` is for evaluations."""
    if table not in TABLES:
        raise Problem(404, UserError("table", table, "is not a table of a run", f"choose one of {', '.join(sorted(TABLES))}"))
    wanted = wanted_format(request, form)
    with reading(site) as store:
        run_id = find(store, run)
        if table == "evaluations":
            check_begun(store, run_id)
            rows, total = store.evaluations_page(run_id, offset, limit, phase)
        else:
            found = store.run_table(TABLES[table], run_id)
            rows, total = found.slice(offset, limit), found.num_rows
    return table_response(request, rows, wanted, name=f"{run_id}-{table}", total=total, offset=offset)


def check_begun(store: StoreReader, run_id: str) -> None:
    """Problem 409 for a run that has no game yet."""
    try:
        store.game_id(run_id)
    except UserError as error:
        raise Problem(409, error) from None


@router.get("/schema", response_model=Schema, summary="Tables and views of the store, with their columns")
def schema(request: Request, site: SiteOf) -> Response:
    """What can be asked in SQL: every table and view with its columns and their types."""
    with reading(site) as store:
        columns = store.sql("SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index")
    tables: dict[str, list[dict[str, str]]] = {}
    for row in columns.to_pylist():
        tables.setdefault(row["table_name"], []).append({"name": row["column_name"], "type": row["data_type"]})
    return tagged(request, json_response({"tables": [{"name": name, "columns": found} for name, found in tables.items()]}))
