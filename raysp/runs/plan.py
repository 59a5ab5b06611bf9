"""Estimate the cost of a run before it starts: sizes, evaluations, and seconds from a short calibration."""

import math
from typing import Any

import numpy as np

from raysp.explorers.base import Explorer
from raysp.game import GameInfo
from raysp.masks import check_finite
from raysp.runs.backend import Backend
from raysp.runs.calibration import calibrate
from raysp.runs.gradients import Gradients
from raysp.runs.run import ends_of, start_explorer
from raysp.runs.run_store import ActionStore
from raysp.runs.slopes import SlopePrice
from raysp.runs.stored_game import PLAN, StoredGame
from raysp.sampling.matching import distinct
from raysp.specs.lenses import CostClass
from raysp.specs.run import RunSpec

#: The number of masks that warm up the model, and of masks that are timed.
CALIBRATION: dict[CostClass, tuple[int, int]] = {"forward": (4, 20), "training": (1, 8)}
#: How the examples of a training set were grouped into components, in words.
GROUPED = {"example": "not grouped", "column": "grouped by a column", "cluster": "grouped in clusters", "duplicates": "near-duplicates grouped"}
#: The fewest subsets per component of a training set.
SUBSETS_EACH = 4


def plan_run(spec: RunSpec, store: ActionStore, backend: Backend) -> dict[str, Any]:
    """Sizes and the costs of exhaustive testing and of this run. Measures a few masks that the run is certain to request with a backend of its lens.

    These evaluations are stored, so the run need not repeat them; if enough evaluations of the game are in the store already, none are measured. Seconds are for
    a single evaluator; with several, divide by their number. Raises as the run itself would.
    """
    started = start_explorer(spec, backend.info)
    # The run computes in the dtype that this settles on: it finds the noise in the store or, if another process writes the store now, measures it as here.
    calibration = calibrate(spec, backend, store, started.keep_probability)
    if calibration is not None and calibration.sample is not None and not store.read_only:
        sample, first = calibration.sample, calibration.sample.first
        store.add_evaluations(
            PLAN,
            "calibrate",
            sample.masks,
            check_finite(sample.masks, first.values),
            outputs=first.outputs,
            game_id=store.register_game(backend.info),
            tokens=first.tokens,
            seconds=first.seconds,
        )
        store.add_cost(PLAN, "calibrate", evaluations=calibration.evaluations, tokens=calibration.tokens, seconds=calibration.seconds)
    info = backend.info
    price = SlopePrice(store, backend)
    explorer = price.inform(Gradients(store, backend).inform(started, spec.lens), lambda: start_explorer(spec, backend.info).certain_masks())
    price.store_sample(PLAN)
    n = info.n
    timed, each, here = _timed(StoredGame(store, backend, PLAN, "calibrate"), explorer, *CALIBRATION[spec.lens.cost_class])
    explored, validated = explorer.planned(n) + 2, spec.validation.planned(n)
    pairs, triples = math.comb(n, 2), math.comb(n, 3)
    return {
        "components": n,
        "pairs": pairs,
        "triples": triples,
        "subsets": 2**n if n <= 1000 else None,
        "seconds_per_evaluation": each,
        "timed_masks": timed,
        "timed_here": here,
        "exhaustive": {"pairs_seconds": (n + pairs + 1) * each, "triples_seconds": (n + pairs + triples + 1) * each, "subsets_seconds": _power(n, each)},
        "this_run": {
            "explorer": explorer.name,
            "explore_evaluations": explored,
            "validate_evaluations": validated,
            "seconds": (explored + validated) * each,
        },
        "training": _training(info, explorer.planned(n)) if spec.lens.cost_class == "training" else None,
        "numeric_noise": None if calibration is None else calibration.row(),
        "notes": list(info.notes),
        "warnings": list(info.warnings),
    }


def _timed(stored: StoredGame, explorer: Explorer, warming: int, timed: int) -> tuple[int, float, bool]:
    """The number of timed evaluations, the seconds that one took, and whether they were timed now rather than taken from the store."""
    count, seconds = (0, math.nan) if stored.game_id is None else stored.store.pace(stored.game_id)
    sure = distinct(np.concatenate([ends_of(stored.info.n), explorer.certain_masks()]))
    unknown = sure[np.isnan(stored.known(sure))]
    if count >= warming + timed or (count and not len(unknown)):
        return count, seconds, False
    # Spread evenly, so that the single ablations, which come first, are not overrepresented.
    chosen = unknown[np.unique(np.linspace(0, len(unknown) - 1, min(warming + timed, len(unknown))).astype(np.int64))]
    warming = min(warming, len(chosen) - 1)
    stored.values(chosen[:warming])
    before = stored.seconds
    stored.values(chosen[warming:])
    return len(chosen) - warming, (stored.seconds - before) / (len(chosen) - warming), True


def _training(info: GameInfo, subsets: int) -> dict[str, Any]:
    """The training set: numbers of examples, queries and subsets, the grouping, and the number of components that the subsets can support."""
    return {
        "examples": len(info.examples),
        "grouped": GROUPED[info.description["grouped"]],
        "queries": len(info.queries),
        "subsets": subsets,
        "carried_components": subsets // SUBSETS_EACH,
    }


def plan_text(plan: dict[str, Any]) -> str:
    """Describe a plan in sentences."""
    run, every = plan["this_run"], plan["exhaustive"]
    pairs, triples, subsets = (duration(every[f"{what}_seconds"]) for what in ("pairs", "triples", "subsets"))
    explore, validate = run["explore_evaluations"], run["validate_evaluations"]
    each, what, mask, took = plan["seconds_per_evaluation"], "evaluation", "mask", duration(run["seconds"])
    if plan["training"]:
        what, mask = "retraining", "subset"
    return "\n".join(
        [
            f"{plan['components']:,} components: {plan['pairs']:,} pairs, {plan['triples']:,} triples, {_subsets(plan['components'])} subsets.",
            *_training_lines(plan),
            f"One {what} takes {f'{each * 1000:.1f} ms' if each < 0.1 else f'{each:.2f} s'} {_where(plan, mask)}.",
            f"Exhaustive testing would take {pairs} for all pairs, {triples} with all triples, {subsets} for all subsets.",
            f"This run ({run['explorer']}) buys at most {explore:,} {what}s to explore and {validate:,} to validate: about {took} on one evaluator.",
            *(f"warning: {text}" for text in plan["warnings"]),
        ]
    )


def _where(plan: dict[str, Any], mask: str) -> str:
    """The source of the timing, in words."""
    return f"here (measured on {plan['timed_masks']:,} {mask}s)" if plan["timed_here"] else f"(median of the {plan['timed_masks']:,} {mask}s in the store)"


def _training_lines(plan: dict[str, Any]) -> list[str]:
    training = plan["training"]
    if not training:
        return []
    lines = [f"They are {training['examples']:,} training examples, {training['grouped']}; every retraining is evaluated on all {training['queries']} queries."]
    lines += [f"  {note}" for note in plan["notes"]]
    carried, subsets = training["carried_components"], training["subsets"]
    advice = f"{subsets:,} subsets support about {carried:,} components, at {SUBSETS_EACH} subsets per component"
    more = f": set components to {carried} to group the examples, or subsets to {SUBSETS_EACH * plan['components']:,}." if carried < plan["components"] else "."
    return [*lines, advice + more]


def duration(seconds: float | None) -> str:
    """Format seconds in a readable unit."""
    if seconds is None:
        return "longer than the universe has lasted"
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (31_557_600, 86_400, "days")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {name}" if seconds < 10 * unit else f"{seconds / unit:.0f} {name}"
    years = seconds / 31_557_600
    return f"{years:,.0f} years" if years < 1.4e10 else "longer than the universe has lasted"


def _power(n: int, each: float) -> float | None:
    return 2.0**n * each if n <= 900 else None


def _subsets(n: int) -> str:
    return f"{2**n:,}" if n <= 40 else f"about 10^{n * math.log10(2):.0f}"
