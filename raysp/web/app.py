"""The application: routes, access, limits and errors put together. It runs under any ASGI server, and knows the service only as a `Desk`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, FastAPI, Response

from raysp.version import __version__
from raysp.web import asking, comparing, looking, reporting, sql, steering, what_if
from raysp.web.access import Access
from raysp.web.desk import Desk, Settings
from raysp.web.limits import BodyLimit
from raysp.web.pages import ask as ask_page
from raysp.web.pages import compare, login, run, runs, workers
from raysp.web.pages import sql as sql_page
from raysp.web.problems import MEDIA_TYPE, add_handlers, json_response
from raysp.web.schemas import Health, ServiceOf
from raysp.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["service"])
PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The error as one line."},
        "field": {"type": "string"},
        "value": {},
        "problem": {"type": "string"},
        "remedy": {"type": "string"},
    },
}
#: The routes of the pages.
PAGES = (login.router, ask_page.router, runs.router, run.router, compare.router, sql_page.router, workers.router)
#: Errors that every route may answer with.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
    for status, text in (
        (400, "The body cannot be read."), (401, "The token is missing or wrong."), (403, "The request does not come from a page of this service."),
        (404, "There is no such thing."), (406, "None of the accepted formats can be written."), (409, "Not in the state in which this run is."),
        (413, "The request is too large."), (415, "The body has another format."), (422, "The request is not valid."), (503, "The service is busy or being restarted."),
    )
}  # fmt: skip


@router.get(
    "/health",
    response_model=Health,
    summary="Whether the service is there",
    responses={503: {"description": "The web end is there, and the scheduler does not answer."}},
)
def health(site: SiteOf) -> Response:
    """Open to everybody, and tells nothing else."""
    return json_response({"status": "ok"} if site.tail.answers else {"status": "the scheduler does not answer"}, 200 if site.tail.answers else 503)


@router.get("/service", response_model=ServiceOf, summary="What the service does, and with what")
def service(site: SiteOf) -> Response:
    """Its version, evaluators with their nodes and models, runs by status, the queue, and evaluations per second."""
    status = site.tail.status
    rate = sum(state.progress.rate for state in site.tail.states() if state.status == "running" and state.progress is not None)
    about = {"version": __version__, "store": str(site.settings.store), "answers": site.tail.answers, "evaluations_per_second": rate}
    links = {"dashboard": site.settings.dashboard, "grafana": site.settings.grafana}
    return json_response({**about, **({} if status is None else {**asdict(status), "version": __version__}), "links": links})


def create_app(settings: Settings, desk: Desk) -> FastAPI:
    """The web end of a service as an ASGI application. Its threads begin and end with the server's lifespan."""
    site = Site.of(settings, desk)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        site.tail.start()
        yield
        site.close()

    app = FastAPI(
        title="raysp", version=__version__, lifespan=lifespan, responses=ERRORS, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
        description="Which components of a language model's input, mechanism or training, alone and together, made it say so?",
    )  # fmt: skip
    app.state.site = site
    for each in (router, asking.router, steering.router, what_if.router, sql.router, comparing.router, reporting.router, looking.router, *PAGES):
        app.include_router(each)
    add_handlers(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Access, sessions=site.sessions)
    return app
