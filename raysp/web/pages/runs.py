"""The list of runs, which its script fills and keeps up to date."""

from collections.abc import Iterable
from typing import Any, get_args

from fastapi import APIRouter, Request, Response

from raysp.runs.state import Status
from raysp.web.looking import run_rows
from raysp.web.pages.rendering import render
from raysp.web.pages.route import PageRoute
from raysp.web.site import SiteOf

router = APIRouter(include_in_schema=False, route_class=PageRoute)
#: The filters whose values come from the runs, by their column, with their titles.
CHOSEN = {"lens": ("lens", "Lens"), "model": ("model", "Model"), "verdict": ("verdict", "Verdict"), "set": ("set_name", "Set")}


@router.get("/runs")
def runs(request: Request, site: SiteOf) -> Response:
    """The list; its filters are in the address."""
    rows = run_rows(site)
    choices = {name: (title, _values(rows, column)) for name, (column, title) in CHOSEN.items()}
    return render(request, "runs.html.j2", statuses=get_args(Status), choices=choices, any=bool(rows))


def _values(rows: Iterable[dict[str, Any]], column: str) -> list[str]:
    return sorted({row[column] for row in rows if row[column] is not None})
