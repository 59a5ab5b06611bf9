"""The page of what the service works with: nodes, evaluators, models in memory, and the queue."""

from fastapi import APIRouter, Request, Response

from raysp.web.pages.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/workers")
def workers(request: Request) -> Response:
    """The page; its script keeps it up to date."""
    return render(request, "workers.html.j2")
