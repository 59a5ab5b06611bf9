"""Routes that ask what a run's value would be: predicted by its surrogate, measured by its model, and the smallest set that carries it across a threshold."""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysp.errors import UserError
from raysp.masks import Masks
from raysp.runs.prediction import Prediction, as_json, mask_of
from raysp.web.looking import known_id
from raysp.web.problems import Problem, json_response
from raysp.web.schemas import Flipped, Predicted
from raysp.web.site import Site, SiteOf
from raysp.web.surrogates import Kept

router = APIRouter(prefix="/api/v1", tags=["what if"])

#: Sets of one request.
MOST_SETS = 1_000
#: Values that are differences between two answers: their sign says which one the model gives.
SIGNED = ("logit_diff", "logprob_diff", "margin", "class_margin")
#: Candidates of the search for the smallest set, and how long a request waits for each of their measurements.
MOST_SIZE, FLIP_SECONDS = 8, 60.0

Names = list[int | str]


class Without(BaseModel):
    """Components that are removed, or the only ones that are kept, by index or label; a list of such lists asks about several sets at once."""

    model_config = ConfigDict(extra="forbid")

    removed: Annotated[Names | list[Names], Field(max_length=100_000)] | None = None
    kept: Annotated[Names | list[Names], Field(max_length=100_000)] | None = None
    query: Annotated[int | None, Field(ge=0, le=2**31 - 1, description="A query of a training set, in place of the mean over all.")] = None

    @model_validator(mode="after")
    def _check_one(self) -> "Without":
        if (self.removed is None) == (self.kept is None):
            raise ValueError("give either removed or kept")
        return self

    def masks(self, labels: list[str]) -> tuple[Masks, bool]:
        """The masks (bool, `(k, n)`), and whether several sets were given. UserError for names that are not components."""
        given = self.removed if self.removed is not None else self.kept or []
        several = bool(given) and all(isinstance(each, list) for each in given)
        if not several and any(isinstance(each, list) for each in given):
            raise UserError("removed", None, "mixes components and lists of them", "give one list, or a list of lists")
        sets: Any = given if several else [given]
        if len(sets) > MOST_SETS:
            raise UserError("removed", len(sets), "sets are too many at once", f"give at most {MOST_SETS:,}")
        masks = [mask_of(labels, each, None) if self.removed is not None else mask_of(labels, None, each) for each in sets]
        return np.concatenate(masks), several


class Flip(BaseModel):
    """What the smallest set is to do, and how large it may be."""

    model_config = ConfigDict(extra="forbid")

    threshold: Annotated[
        float | None, Field(allow_inf_nan=False, description="The value to cross. Default 0 for differences, else halfway to the empty input.")
    ] = None
    most: Annotated[int, Field(ge=1, le=MOST_SIZE, description="The largest size that is tried.")] = MOST_SIZE
    verify: Annotated[bool, Field(description="Whether candidates are measured with the model.")] = True


@router.post("/runs/{run}/predict", response_model=Predicted, summary="The surrogate's value without some components, at once")
def predict(site: SiteOf, run: str, without: Annotated[Without, Body()]) -> Response:
    """The surrogate's prediction with its interval, and the measured value if there is one. No model is asked."""
    run_id = known_id(site, run)
    kept = _surrogate(site, run_id, without.query)
    masks, several = without.masks(kept.labels)
    return json_response(_told(run_id, kept, _predicted(site, kept, masks), several=several))


@router.post(
    "/runs/{run}/measure",
    response_model=Predicted,
    summary="The model's exact value without some components",
    responses={202: {"description": "It takes longer; ask again."}},
)
async def measure(site: SiteOf, run: str, without: Annotated[Without, Body()]) -> Response:
    """Measure with the run's model, store the value, and return it beside the prediction. 202 while that takes longer: ask again for the same."""
    run_id = await run_in_threadpool(known_id, site, run)
    kept = await run_in_threadpool(_surrogate, site, run_id, without.query)
    masks, several = without.masks(kept.labels)
    if not await measured(site, run_id, masks):
        return json_response({"run_id": run_id, "status": "measuring"}, 202, **{"Retry-After": "1"})
    found = await run_in_threadpool(_predicted, site, kept, masks)
    return json_response(_told(run_id, kept, found, several=several))


@router.post("/runs/{run}/flip", response_model=Flipped, summary="The smallest set whose removal changes the answer")
async def flip(site: SiteOf, run: str, wanted: Annotated[Flip, Body()] = Flip()) -> Response:  # noqa: B008  FastAPI's way of saying that the body may be left out
    """Candidates of the surrogate by size, measured from the smallest on until one crosses the threshold with the model too."""
    run_id = await run_in_threadpool(known_id, site, run)
    kept = await run_in_threadpool(_surrogate, site, run_id, None)
    threshold = wanted.threshold if wanted.threshold is not None else usual_threshold(kept.row)
    intact = float(kept.row["value_intact"])
    candidates = await run_in_threadpool(site.desk.flips, kept.surrogate, threshold, wanted.most)
    tried: list[dict[str, Any]] = []
    status: Literal["flipped", "predicted", "not found", "measuring"] = "not found"
    for members in candidates:
        mask = mask_of(kept.labels, list(members), None)
        if wanted.verify and not await measured(site, run_id, mask, FLIP_SECONDS):
            status = "measuring"
            break
        (found,) = await run_in_threadpool(_predicted, site, kept, mask)
        crossed = None if found.measured is None else (found.measured > threshold) != (intact > threshold)
        tried.append({**as_json(found), "size": len(members), "flipped": crossed})
        if not wanted.verify or crossed:
            status = "flipped" if crossed else "predicted"
            break
    best = tried[-1] if status in ("flipped", "predicted") else None
    about = {"run_id": run_id, "status": status, "threshold": threshold, "value_intact": intact, "most": wanted.most}
    return json_response({**about, "best": best, "tried": tried}, 202 if status == "measuring" else 200)


async def measured(site: Site, run_id: str, masks: Masks, seconds: float | None = None) -> bool:
    """Have masks measured that the store does not have; False if that is not done yet."""
    kept = await run_in_threadpool(_surrogate, site, run_id, None)
    found = await run_in_threadpool(_predicted, site, kept, masks)
    missing = np.array([each.measured is None for each in found])
    if not missing.any():
        return True
    done = await (site.measuring.measure(run_id, masks[missing]) if seconds is None else site.measuring.measure(run_id, masks[missing], seconds))
    if done:
        site.tail.touch(run_id)
    return done


def _predicted(site: Site, kept: Kept, masks: Masks) -> list[Prediction]:
    return kept.predict(masks, site.readings, site.since(kept.row["run_id"]))


def _surrogate(site: Site, run_id: str, query: int | None) -> Kept:
    """The surrogate of a run. Problem 409 for a run that has none, or none yet; 404 for one that was removed a moment ago."""
    try:
        return site.surrogates.get(run_id, query, site.since(run_id))
    except UserError as error:
        if error.field == "run":
            raise Problem(409, error) from None
        raise
    except ValueError as error:
        raise Problem(404, str(error)) from None


def usual_threshold(row: dict[str, Any]) -> float:
    """The value at which an answer changes: 0 for a difference between two answers, otherwise halfway between the intact and the empty input."""
    value = row["game"]["description"].get("value")
    return 0.0 if value in SIGNED else (float(row["value_intact"]) + float(row["value_empty"])) / 2


def _told(run_id: str, kept: Kept, found: list[Prediction], *, several: bool) -> dict[str, Any]:
    about = {"run_id": run_id, "value_intact": kept.row["value_intact"], "value_empty": kept.row["value_empty"]}
    return {**about, "predictions": [as_json(each) for each in found]} if several else {**about, **as_json(found[0])}
