"""Logging in with the token, and out; the first page; and the files that pages are made of."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from raysp.web.access import COOKIE, SESSION_SECONDS, local_path, same_origin
from raysp.web.pages.rendering import render, static_file
from raysp.web.problems import Problem
from raysp.web.site import SiteOf

router = APIRouter(include_in_schema=False)
#: Bytes of the form.
MOST_BYTES = 8192


@router.get("/")
def first() -> Response:
    """The list of runs comes first."""
    return RedirectResponse("/runs", 303)


@router.get("/login")
def form(request: Request, target: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The form that asks for the token."""
    return render(request, "login.html.j2", target=local_path(target), problem=None)


@router.post("/login")
async def log_in(request: Request, site: SiteOf) -> Response:
    """Begin a session if the token is right."""
    body = await request.body()
    if len(body) > MOST_BYTES or not same_origin(dict(request.headers)):
        raise Problem(403, "the form does not come from a page of this service; reload the page")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    target = local_path(fields.get("next", ["/"])[0])
    if not site.sessions.is_token(fields.get("token", [""])[0].strip()):
        return render(request, "login.html.j2", 401, target=target, problem="This is not the token of this service.")
    response = RedirectResponse(target, 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, site.sessions.new(), max_age=SESSION_SECONDS, httponly=True, samesite="lax", secure=secure)
    return response


@router.post("/logout")
def log_out() -> Response:
    """End the session of this browser."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


@router.get("/static/{folder}/{name}")
def static(folder: str, name: str) -> Response:
    """A file that pages are made of."""
    return static_file(folder, name)
