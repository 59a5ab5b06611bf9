"""Routes that steer runs, and the events that tell where they stand."""

import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from raysp.errors import UserError
from raysp.runs.state import Desired, RunState
from raysp.store import plain
from raysp.web.looking import known_id, standing, state_row
from raysp.web.problems import Problem, json_response
from raysp.web.schemas import State
from raysp.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["runs"])

DESIRED: dict[str, Desired] = {"cancel": "cancelled", "pause": "paused", "resume": "running"}
#: How often a stream without news says that it is there: proxies close those that say nothing.
ALIVE_SECONDS = 15.0
STREAM = "text/event-stream"
EVENTS: dict[int | str, dict[str, Any]] = {200: {"description": "Server-sent events `state`, each a run's state as JSON.", "content": {STREAM: {}}}}


@router.post("/runs/{run}/cancel", response_model=State, summary="Cancel a run after the batches under way")
def cancel(site: SiteOf, run: str) -> Response:
    """Cancel a run. What was measured stays stored, and `resume` continues from there."""
    return _steer(site, run, "cancel")


@router.post("/runs/{run}/pause", response_model=State, summary="Pause a run after the batches under way")
def pause(site: SiteOf, run: str) -> Response:
    """Pause a run, until `resume`."""
    return _steer(site, run, "pause")


@router.post("/runs/{run}/resume", response_model=State, summary="Continue a run")
def resume(site: SiteOf, run: str) -> Response:
    """Continue a run that was paused, cancelled or interrupted, or that failed. Nothing that is stored is evaluated again."""
    return _steer(site, run, "resume")


def _steer(site: Site, run: str, what: Literal["cancel", "pause", "resume"]) -> Response:
    run_id = known_id(site, run)
    try:
        state = site.desk.steer(run_id, DESIRED[what])
    except UserError as error:
        raise Problem(409, error) if error.field == "run" else error from None
    site.tail.note([state])
    return json_response(state_row(state))


@router.get("/runs/{run}/events", summary="What happens to a run, as it happens", responses=EVENTS)
async def run_events(request: Request, site: SiteOf, run: str, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None) -> Response:
    """Server-sent events while the run is under way. `/runs/{run}/log` has what was stored about it."""
    run_id = await run_in_threadpool(known_id, site, run)
    first = await run_in_threadpool(standing, site, run_id)
    return _stream(_events(request, site, _number(last), run_id, first))


@router.get("/events", summary="What happens to all runs, as it happens", responses=EVENTS)
async def events(request: Request, site: SiteOf, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None) -> Response:
    """Server-sent events: the states of all runs that the service knows, and again whenever one changes."""
    return _stream(_events(request, site, _number(last), None, None))


def _number(last: str | None) -> int:
    return int(last) if last is not None and last.isdigit() and len(last) < 20 else -1


def _stream(generated: AsyncGenerator[str]) -> Response:
    return StreamingResponse(generated, media_type=STREAM, headers={"cache-control": "no-store", "x-accel-buffering": "no"})


async def _events(request: Request, site: Site, since: int, run_id: str | None, first: RunState | None) -> AsyncGenerator[str]:
    """The newest state of one run until it has ended, or of all runs for ever. States in between may be left out."""
    async with site.tail.listening() as listener:
        yield "retry: 1000\n\n"
        if first is not None and first.version == 0:  # one that the scheduler does not know: nothing will happen to it
            yield _event(first)
            return
        while not await request.is_disconnected():
            fresh = site.tail.newer(since, run_id)
            for state in fresh:
                since = max(since, state.version)
                yield _event(state)
                if run_id is not None and state.ended:
                    return
            if not fresh:
                yield ": alive\n\n"
            await listener.wait(ALIVE_SECONDS)


def _event(state: RunState) -> str:
    return f"id: {state.version}\nevent: state\ndata: {json.dumps(plain(state_row(state)), ensure_ascii=False)}\n\n"
