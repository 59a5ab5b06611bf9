"""Errors as problem documents (RFC 9457): the one line that the command line would print, with its field, value and remedy apart."""

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from raysp.errors import EvaluationError, InterruptedRunError, UserError, masked
from raysp.store import plain

MEDIA_TYPE = "application/problem+json"
#: Fields of errors that are about the service and not about the request: it is busy or being restarted, and may be asked again.
UNAVAILABLE = frozenset({"store", "cluster", "service"})
#: When to ask again, in seconds.
RETRY_SECONDS = 2

log = logging.getLogger(__name__)


class Problem(Exception):  # noqa: N818  the term of RFC 9457
    """A request that is answered with an error status."""

    def __init__(self, status: int, error: UserError | str) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


def not_found(error: UserError) -> Problem:
    """The problem of something that does not exist."""
    return Problem(404, error)


def problem_response(status: int, error: UserError | str, **headers: str) -> Response:
    """An error as a response. An error that is not a UserError has no field."""
    document: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": masked(str(error))}
    if isinstance(error, UserError):
        value = None if error.value is None else plain(error.value)
        document |= {"field": error.field, "value": value, "problem": error.problem, "remedy": error.remedy}
    text = masked(json.dumps(document, ensure_ascii=False, allow_nan=False))
    return Response(text.encode("utf-8", "replace"), status, headers, MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(EvaluationError, _evaluation_error)
    app.add_exception_handler(InterruptedRunError, _interrupted)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


def _problem(_: Request, error: Any) -> Response:
    return problem_response(error.status, error.error)


def _user_error(_: Request, error: Any) -> Response:
    if error.field in UNAVAILABLE:
        return problem_response(503, error, **{"Retry-After": str(RETRY_SECONDS)})
    return problem_response(422, error)


def _evaluation_error(_: Request, error: Any) -> Response:
    return problem_response(422, str(error))


def _interrupted(_: Request, error: Any) -> Response:
    return problem_response(409, str(error))


def _invalid(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")) or "body"
    given = first.get("input")
    shown = given if isinstance(given, str | int | float | bool) else None
    return problem_response(422, UserError(where, shown, "is not valid", str(first["msg"])))


def _http(_: Request, error: Any) -> Response:
    return problem_response(error.status_code, str(error.detail), **(error.headers or {}))


def _defect(request: Request, error: Exception) -> Response:
    log.error("request failed", exc_info=error, extra={"path": request.url.path})
    return problem_response(500, f"internal error: {type(error).__name__}; the log of the web end has the traceback")


def json_response(content: Any, status: int = 200, **headers: str) -> JSONResponse:
    """Plain data as JSON: numbers that are not finite are null, dates are ISO 8601."""
    return JSONResponse(plain(content), status, headers)
