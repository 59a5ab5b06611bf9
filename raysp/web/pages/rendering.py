"""Templates of the pages, and what every page has: navigation, the session's token for requests that change something, and scripts and styles by their address."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from operator import itemgetter
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

from raysp.report.render import environment as report_environment
from raysp.version import __version__
from raysp.web.problems import Problem

#: The pages of the navigation, by their address.
NAVIGATION = {"/ask": "Ask", "/runs": "Runs", "/compare": "Compare", "/sql": "SQL", "/workers": "Workers"}
#: Where files of pages are found, by the folder of their address.
FOLDERS: Mapping[str, tuple[str, str]] = {"app": ("raysp.web", "static"), "report": ("raysp.report", "templates")}
MEDIA = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


@cache
def environment() -> Environment:
    """The templates of this room, and those of reports."""
    found: Any = report_environment(PackageLoader("raysp.web"))
    found.globals["asset"] = asset
    return found


def render(request: Request, template: str, status: int = 200, **content: Any) -> Response:
    """A page. `content` is what its own template needs."""
    return HTMLResponse(environment().get_template(template).render(**shared(request), **content), status)


def shared(request: Request) -> dict[str, Any]:
    """What every page has: the session's token, and where it is in the navigation."""
    return {"csrf": request.state.csrf, "navigation": NAVIGATION, "here": f"/{request.url.path.split('/')[1]}", "version": __version__}


def asset(folder: str, name: str) -> str:
    """The address of a file. It changes with the content of its folder, so that browsers may keep it, and with it whatever it names by its place beside it."""
    return f"{assets(folder)}/{name}"


def assets(folder: str) -> str:
    """The address of a folder of scripts and styles."""
    return f"/static/{folder}~{_digest(folder)}"


@cache
def _digest(folder: str) -> str:
    package, within = FOLDERS[folder]
    files = sorted(((each.name, each) for each in resources.files(package).joinpath(within).iterdir() if each.is_file()), key=itemgetter(0))
    return hashlib.sha256(b"".join(name.encode() + b"\0" + each.read_bytes() for name, each in files)).hexdigest()[:12]


def _file(folder: str, name: str) -> Traversable:
    package, within = FOLDERS[folder]
    return resources.files(package).joinpath(within).joinpath(name)


def static_file(folder: str, name: str) -> Response:
    """A script, style or picture. Problem 404 for anything else, whatever it is called."""
    suffix, folder = name[name.rfind(".") :], folder.partition("~")[0]
    if folder not in FOLDERS or suffix not in MEDIA or "/" in name or "\\" in name or "\0" in name or not (found := _file(folder, name)).is_file():
        raise Problem(404, f"/static/{folder}/{name} does not exist")
    return Response(found.read_bytes(), headers={"cache-control": "public, max-age=31536000, immutable"}, media_type=MEDIA[suffix])
