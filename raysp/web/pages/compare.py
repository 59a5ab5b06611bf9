"""The page that compares runs; its script asks for the comparison."""

from fastapi import APIRouter, Request, Response

from raysp.runs.comparison import TOP
from raysp.web.comparing import MOST_COMPARED
from raysp.web.pages.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/compare")
def compare(request: Request) -> Response:
    """The page; the runs are in its address."""
    return render(request, "compare.html.j2", most=MOST_COMPARED, top=TOP)
