"""The route of a run's report: one file that needs nothing else."""

from fastapi import APIRouter, Request, Response

from raysp.report.page import run_page
from raysp.report.render import render
from raysp.web.formats import tagged
from raysp.web.looking import check_begun, find, reading
from raysp.web.site import SiteOf

router = APIRouter(prefix="/api/v1", tags=["runs"])


@router.get("/runs/{run}/report", summary="The report of a run as one HTML file", responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}})
def report(request: Request, site: SiteOf, run: str) -> Response:
    """What `raysp report` writes: the answer with everything that it is shown with, to be kept or sent around."""
    with reading(site) as store:
        run_id = find(store, run)
        check_begun(store, run_id)
        page = render("run.html.j2", run_page(store, run_id))
    headers = {"content-disposition": f'attachment; filename="{run_id}.html"'}
    return tagged(request, Response(page, headers=headers, media_type="text/html"))
