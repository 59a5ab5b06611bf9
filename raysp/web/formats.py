"""Tables as responses: JSON, CSV, Arrow or Parquet, by `?format=` or the Accept header, with an ETag of what they hold."""

import hashlib
import io
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import Query, Request, Response

from raysp.errors import UserError
from raysp.store import plain, rows, write_table
from raysp.store.packing import Table
from raysp.web.problems import Problem, json_response

Format = Literal["json", "csv", "arrow", "parquet"]
MEDIA: Mapping[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
FormatOf = Annotated[Format | None, Query(alias="format", description="How the rows are written; by default what the Accept header asks for, otherwise JSON.")]
#: Rows of a page, unless the request says otherwise, and at most.
ROWS, MOST_ROWS = 1_000, 100_000
LimitOf = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows of a page.")]
OffsetOf = Annotated[int, Query(ge=0, le=2**62, description="Rows before the page.")]
#: What the OpenAPI document says of a route that answers with a table.
TABLE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Rows. As JSON: `rows` (objects by column), `total`, and `next`, the offset of the next page or null.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["rows", "total", "next"],
                    "properties": {
                        "rows": {"type": "array", "items": {"type": "object"}},
                        "total": {"type": "integer"},
                        "next": {"type": ["integer", "null"]},
                    },
                }
            },
            **{MEDIA[form].partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for form in ("csv", "arrow", "parquet")},
        },
    },
    304: {"description": "The table is the one of `If-None-Match`."},
}


def wanted_format(request: Request, given: Format | None) -> Format:
    """The format of a response: the given one, else the first that the Accept header names. Problem 406 if it names none of them."""
    if given is not None:
        return given
    accept = request.headers.get("accept", "*/*")
    for part in accept.split(","):
        media = part.split(";")[0].strip().lower()
        if media in ("*/*", "application/*", "", "text/html"):
            return "json"
        for form, known in MEDIA.items():
            if media == known.partition(";")[0]:
                return form
    raise Problem(406, UserError("accept", accept, "names no format of this table", f"accept {', '.join(each.partition(';')[0] for each in MEDIA.values())}"))


def table_response(request: Request, table: Table, form: Format, *, name: str, total: int | None = None, offset: int = 0) -> Response:
    """A page of a table: `total` rows in all (by default those of the page), of which `offset` come before it. 304 if the client has it."""
    count = table.num_rows if total is None else total
    after = offset + table.num_rows
    if form == "json":
        found = [{key: plain(value) for key, value in zip(table.column_names, row, strict=True)} for row in rows(table)]
        response: Response = json_response({"rows": found, "total": count, "next": after if after < count else None})
    else:
        response = Response(_written(table, form), media_type=MEDIA[form])
        response.headers["content-disposition"] = f'attachment; filename="{name}.{form}"'
        response.headers["x-total-rows"] = str(count)
    return tagged(request, with_next(request, response, after) if after < count else response)


def with_next(request: Request, response: Response, offset: int) -> Response:
    """The response with a link to the page that begins at `offset`."""
    following = request.url.include_query_params(offset=offset)
    response.headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
    return response


def tagged(request: Request, response: Response) -> Response:
    """The response with an ETag of its content, or 304 if the client has it already."""
    tag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    given = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if tag in given or "*" in given:
        return Response(status_code=304, headers={"etag": tag, "cache-control": "private, no-cache", "vary": "accept"})
    response.headers.update({"etag": tag, "cache-control": "private, no-cache", "vary": "accept"})
    return response


def _written(table: Table, form: Format) -> bytes:
    content = io.BytesIO()
    if form == "arrow":
        with pa.ipc.new_stream(content, table.schema) as stream:
            stream.write_table(table)
    else:
        write_table(table, form, content)
    return content.getvalue()
