"""What a run will cost before it is paid for: sizes, evaluations, and seconds from a short calibration."""

import math
import time
from typing import Any

import numpy as np

from raysp.game import GameInfo
from raysp.lenses import build_game
from raysp.runs.calibration import calibrate
from raysp.runs.gradients import Gradients
from raysp.runs.local import LocalBackend
from raysp.runs.run import start_explorer
from raysp.specs.lenses import CostClass
from raysp.specs.run import RunSpec
from raysp.store import Store

#: Masks that warm the model up, and masks that are timed.
CALIBRATION: dict[CostClass, tuple[int, int]] = {"forward": (4, 20), "training": (1, 8)}
#: How the examples of a training set were made components, in words.
GROUPED = {"example": "not grouped", "column": "grouped by a column", "cluster": "grouped in clusters", "duplicates": "near-duplicates grouped"}
#: Subsets that each component of a training set should have at least.
SUBSETS_EACH = 4


def plan_run(spec: RunSpec, store: Store) -> dict[str, Any]:
    """Sizes, the price of exhaustive testing and of this run. Builds the game in this process and measures a few masks of the run's own kind.

    Seconds are for one evaluator such as this process; several divide them. Raises as the run itself would.
    """
    backend = LocalBackend(build_game(spec.lens))
    started = start_explorer(spec, backend.info)
    calibration = calibrate(spec, backend, store, started.keep_probability)  # the run finds it stored, and computes in the same dtype
    game = backend.game
    explorer = Gradients(store, game).inform(started, spec.lens)
    n = game.n
    warming, timed = CALIBRATION[spec.lens.cost_class]
    rng = np.random.default_rng([spec.seed, 2])
    masks = rng.random((warming + timed, n)) < explorer.keep_probability
    game.evaluate(masks[:warming])
    began = time.perf_counter()
    game.evaluate(masks[warming:])
    each = (time.perf_counter() - began) / timed
    explored, validated = explorer.planned(n) + 2, spec.validation.planned(n)
    pairs, triples = math.comb(n, 2), math.comb(n, 3)
    return {
        "components": n,
        "pairs": pairs,
        "triples": triples,
        "subsets": 2**n if n <= 1000 else None,
        "seconds_per_evaluation": each,
        "timed_masks": timed,
        "exhaustive": {"pairs_seconds": (n + pairs + 1) * each, "triples_seconds": (n + pairs + triples + 1) * each, "subsets_seconds": _power(n, each)},
        "this_run": {
            "explorer": explorer.name,
            "explore_evaluations": explored,
            "validate_evaluations": validated,
            "seconds": (explored + validated) * each,
        },
        "training": _training(game.info, explorer.planned(n)) if spec.lens.cost_class == "training" else None,
        "numeric_noise": None if calibration is None else calibration.row(),
        "notes": list(game.info.notes),
        "warnings": list(game.info.warnings),
    }


def _training(info: GameInfo, subsets: int) -> dict[str, Any]:
    """The training set: its examples, how they are grouped, what they are asked, and how many components the subsets can carry."""
    return {
        "examples": len(info.examples),
        "grouped": GROUPED[info.description["grouped"]],
        "queries": len(info.queries),
        "subsets": subsets,
        "carried_components": subsets // SUBSETS_EACH,
    }


def plan_text(plan: dict[str, Any]) -> str:
    """A plan in sentences."""
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
            f"One {what} takes {f'{each * 1000:.1f} ms' if each < 0.1 else f'{each:.2f} s'} here (measured on {plan['timed_masks']} {mask}s).",
            f"Exhaustive testing would take {pairs} for all pairs, {triples} with all triples, {subsets} for all subsets.",
            f"This run ({run['explorer']}) buys at most {explore:,} {what}s to explore and {validate:,} to validate: about {took} on one evaluator.",
            *(f"warning: {text}" for text in plan["warnings"]),
        ]
    )


def _training_lines(plan: dict[str, Any]) -> list[str]:
    training = plan["training"]
    if not training:
        return []
    lines = [f"They are {training['examples']:,} training examples, {training['grouped']}; every retraining answers all {training['queries']} queries."]
    lines += [f"  {note}" for note in plan["notes"]]
    carried, subsets = training["carried_components"], training["subsets"]
    advice = f"{subsets:,} subsets carry about {carried:,} components, at {SUBSETS_EACH} subsets a component"
    more = f": group the examples with components {carried}, or buy {SUBSETS_EACH * plan['components']:,}." if carried < plan["components"] else "."
    return [*lines, advice + more]


def duration(seconds: float | None) -> str:
    """Seconds in the unit a person would use."""
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
