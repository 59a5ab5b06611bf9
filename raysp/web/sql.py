"""Routes for SQL: one statement that only reads, answered by a process of its own within limits."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from raysp.errors import UserError
from raysp.store import Answer, Limits, plain, rows
from raysp.store.questions import MOST_CHARACTERS
from raysp.web.formats import Format, table_response, tagged, wanted_format
from raysp.web.problems import json_response, not_found
from raysp.web.schemas import SqlAnswer
from raysp.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["sql"])

#: Rows of an answer by its format, unless the request says otherwise, and at most; its size in bytes; and how long a query may take.
SHOWN: dict[Format, int] = {"json": 1_000, "csv": 100_000, "arrow": 1_000_000, "parquet": 1_000_000}
MOST_ROWS, MOST_BYTES, SECONDS, MOST_SECONDS = 1_000_000, 256 << 20, 30.0, 300.0
#: How old the snapshot may be that is read.
AGE_SECONDS = 2.0


class Query_(BaseModel):  # noqa: N801  FastAPI's Query has the name
    """A query and the limits of its answer."""

    model_config = ConfigDict(extra="forbid", title="Query")

    query: Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, description="One SELECT-like statement.")]
    format: Annotated[Format | None, Field(description="By default what the Accept header asks for, otherwise JSON.")] = None
    limit: Annotated[int | None, Field(ge=1, le=MOST_ROWS, description="Rows of the answer.")] = None
    timeout: Annotated[float, Field(gt=0, le=MOST_SECONDS, description="Seconds.")] = SECONDS


@router.post("/sql", response_model=SqlAnswer, summary="Ask the store in SQL, read-only")
def ask(request: Request, site: SiteOf, asked: Annotated[Query_, Body()]) -> Response:
    """Columns and rows, and whether there are more. No statement can change the store or touch another file."""
    return answer(request, site, asked)


@router.get("/sql", summary="The same, as a link to the answer")
def link(
    request: Request,
    site: SiteOf,
    query: Annotated[str, Query(alias="q", min_length=1, max_length=8_000)],
    form: Annotated[Format | None, Query(alias="format")] = None,
    limit: Annotated[int | None, Query(ge=1, le=MOST_ROWS)] = None,
) -> Response:
    """As the POST, with the query in the address."""
    return answer(request, site, Query_(query=query, format=form, limit=limit))


def answer(request: Request, site: Site, asked: Query_) -> Response:
    """The answer to a query in its format."""
    form = wanted_format(request, asked.format)
    found = _ask(site, asked.query, Limits(asked.timeout, asked.limit or SHOWN[form], MOST_BYTES))
    if form == "json":
        columns = [{"name": field.name, "type": str(field.type)} for field in found.table.schema]
        lines = [[plain(value) for value in row] for row in rows(found.table)]
        content: dict[str, Any] = {"columns": columns, "rows": lines, "truncated": found.truncated, "note": found.note}
        return tagged(request, json_response(content))
    response = table_response(request, found.table, form, name="answer")
    response.headers["x-truncated"] = str(found.truncated).lower()
    return response


def _ask(site: Site, query: str, limits: Limits) -> Answer:
    if "\0" in query:
        raise UserError("sql", None, "holds a NUL character", "remove it")
    if not site.settings.store.exists():
        raise not_found(UserError("store", None, "is empty: nothing has been asked yet", "submit a question first"))
    site.readings.held()
    return site.queries.ask(site.settings.store, query, limits, AGE_SECONDS)
