"""What a run will cost before it is paid for: sizes, evaluations, and seconds from a short calibration."""

import math
import time
from typing import Any

import numpy as np

from raysp.campaign import start_explorer
from raysp.spec import RunSpec

CALIBRATION_MASKS = 24


def plan_run(spec: RunSpec) -> dict[str, Any]:
    """Sizes, the price of exhaustive testing and of this run. Builds the game in this process and measures a few masks of the run's own kind.

    Seconds are for one evaluator such as this process; several divide them. Raises as the run itself would.
    """
    game = spec.lens.build()
    explorer = start_explorer(spec, game.info, game.estimate)
    n = game.n
    rng = np.random.default_rng([spec.seed, 2])
    masks = rng.random((CALIBRATION_MASKS, n)) < explorer.keep_probability
    game.evaluate(masks[:4])  # the first call pays for warming up
    began = time.perf_counter()
    game.evaluate(masks[4:])
    each = (time.perf_counter() - began) / (CALIBRATION_MASKS - 4)
    explored, validated = explorer.planned(n) + 2, spec.validation.planned(n)
    pairs, triples = math.comb(n, 2), math.comb(n, 3)
    return {
        "components": n,
        "pairs": pairs,
        "triples": triples,
        "subsets": 2**n if n <= 1000 else None,
        "seconds_per_evaluation": each,
        "exhaustive": {"pairs_seconds": (n + pairs + 1) * each, "triples_seconds": (n + pairs + triples + 1) * each, "subsets_seconds": _power(n, each)},
        "this_run": {
            "explorer": explorer.name,
            "explore_evaluations": explored,
            "validate_evaluations": validated,
            "seconds": (explored + validated) * each,
        },
        "notes": list(game.info.notes),
        "warnings": list(game.info.warnings),
    }


def plan_text(plan: dict[str, Any]) -> str:
    """A plan in sentences."""
    run, every = plan["this_run"], plan["exhaustive"]
    pairs, triples, subsets = (duration(every[f"{what}_seconds"]) for what in ("pairs", "triples", "subsets"))
    explore, validate = run["explore_evaluations"], run["validate_evaluations"]
    warnings = "".join(f"\nwarning: {text}" for text in plan["warnings"])
    return f"""\
{plan["components"]:,} components: {plan["pairs"]:,} pairs, {plan["triples"]:,} triples, {_subsets(plan["components"])} subsets.
One evaluation takes {plan["seconds_per_evaluation"] * 1000:.1f} ms here (measured on {CALIBRATION_MASKS - 4} masks).
Exhaustive testing would take {pairs} for all pairs, {triples} with all triples, {subsets} for all subsets.
This run ({run["explorer"]}) buys at most {explore:,} evaluations to explore and {validate:,} to validate: about {duration(run["seconds"])} on one evaluator.{warnings}"""


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
