"""The route that compares runs. It reads the store, and never asks the scheduler."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from raysp.errors import UserError
from raysp.runs.comparison import Findings, read_findings, side_by_side
from raysp.store.reading import StoreReader
from raysp.web.formats import tagged
from raysp.web.looking import check_begun, find, reading
from raysp.web.problems import json_response
from raysp.web.schemas import SideBySide
from raysp.web.site import SiteOf

router = APIRouter(prefix="/api/v1", tags=["runs"])

#: Runs of one comparison.
MOST_COMPARED = 12
#: What of each run's row stands beside the others.
ABOUT = ("run_id", "name", "lens", "explorer", "model", "status", "verdict", "n", "r2", "r2_lo", "r2_hi", "r2_singles", "index", "value_intact", "value_empty")


@router.get("/compare", response_model=SideBySide, summary="Two or more runs side by side")
def compare(
    request: Request,
    site: SiteOf,
    runs: Annotated[str, Query(max_length=4_000, description="Runs by id, the beginning of it, name or last, separated by commas.")],
) -> Response:
    """What differs in their specs, their verdicts, rank agreement of single effects, components aligned by label, and interactions found by all or by some."""
    wanted = [each.strip() for each in runs.split(",") if each.strip()]
    if not 2 <= len(wanted) <= MOST_COMPARED:
        raise UserError("runs", len(wanted), "is not a number of runs that can be compared", f"name two to {MOST_COMPARED}, separated by commas")
    with reading(site) as store:
        found = [_findings(store, each) for each in dict.fromkeys(find(store, name) for name in wanted)]
    if len(found) < 2:
        raise UserError("runs", wanted[0], "is named twice", "name two different runs")
    about = [{name: run.summary[name] for name in ABOUT} for run in found]
    return tagged(request, json_response({"runs": about, **side_by_side(found)}))


def _findings(store: StoreReader, run_id: str) -> Findings:
    check_begun(store, run_id)
    return read_findings(store, run_id)
