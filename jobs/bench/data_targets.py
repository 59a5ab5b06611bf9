"""Targets for the LDS rows of `data.py`: each with the value found, the threshold and whether it is met.

Pure arithmetic on rows. Noise is two standard errors, over queries, of the mean difference between two methods that were scored on the same subsets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.bench.engine_targets import reached, target

#: The smallest budget at which proxyspex is compared with the best other method.
CLAIMED = 100

Row = dict[str, Any]


def best_other(found: Sequence[Row], data: str, budget: int) -> Row | None:
    """The best method other than proxyspex that uses at most this many retrainings."""
    there = [row for row in found if row["row"] == "lds" and row["data"] == data and "lds" in row and row["method"] != "proxyspex" and row["budget"] <= budget]
    return max(there, key=lambda row: row["lds"], default=None)


def comparisons(found: Sequence[Row]) -> list[Row]:
    """The score of proxyspex minus that of the best other method, at each budget of a training set; `noise` is two standard errors of the mean difference over queries."""
    compared: list[Row] = []
    for row in found:
        if row["row"] != "lds" or row["method"] != "proxyspex" or "lds" not in row:
            continue
        other = best_other(found, row["data"], row["budget"])
        if other is None:
            continue
        pairs = [(one, two) for one, two in zip(row["by_query"], other["by_query"], strict=True) if one is not None and two is not None]
        gaps = np.array([one - two for one, two in pairs])
        noise = 2 * float(gaps.std(ddof=1)) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        named = {"data": row["data"], "planted": row["planted"], "budget": row["budget"], "against": other["method"]}
        compared.append(named | {"proxyspex": row["lds"], "other": other["lds"], "difference": round(row["lds"] - other["lds"], 4), "noise": round(noise, 4)})
    return compared


def screening(found: Sequence[Row]) -> list[Row]:
    """The number of retrainings needed with gradients to score as well as without, at each budget, and the ratio; null if that score is never reached."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in found:
        if row["row"] == "screening" and "lds" in row:
            curves.setdefault((row["data"], row["method"]), []).append((float(row["budget"]), row["lds"]))
    answer: list[Row] = []
    for (data, method), curve in curves.items():
        if method == "unaided" and (helped := sorted(curves.get((data, "proxyspex"), []))):
            for budget, value in sorted(curve):
                needed = reached(helped, value)
                known = bool(np.isfinite(needed))
                answer.append(
                    {
                        "data": data,
                        "budget": budget,
                        "lds": value,
                        "with_gradients": round(needed) if known else None,
                        "ratio": round(needed / budget, 3) if known else None,
                    }
                )
    return answer


def summary(found: Sequence[Row]) -> Row:
    """The targets, with `lds` by training set, method and budget, `lds_ceiling` and `lds_floor`.

    States whether proxyspex matches the best method (if not, whether it falls short by no more than noise), and leads by more than noise on planted interactions.
    """
    compared = [row for row in comparisons(found) if row["budget"] >= CLAIMED]
    least = min((row["difference"] for row in compared), default=None)
    lead = min((row["difference"] - row["noise"] for row in compared if row["planted"]), default=None)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for row in found:
        if row["row"] == "lds" and "lds" in row:
            table.setdefault(row["data"], {}).setdefault(row["method"], {})[str(row["budget"])] = row["lds"]
    return {
        "lds": table,
        "lds_ceiling": {row["data"]: row["lds"] for row in found if row["row"] == "ceiling" and row["metric"] == "ceiling_attainable"},
        "lds_floor": {row["data"]: row["lds"] for row in found if row["row"] == "floor"},
        "proxyspex_matches_best": target(
            least, ">= 0", within_noise=all(row["difference"] >= -row["noise"] for row in compared) if compared else None, rows=compared
        ),
        "proxyspex_leads_where_planted": target(lead, ">= 0"),
        "screening_with_gradients": screening(found),
        "seconds_per_retraining": {row["data"]: round(row["seconds"] / row["trained"], 2) for row in found if row["row"] == "cost" and row["trained"]},
        "missing": sorted({f"{row['method']}: {row['why']}" for row in found if row["row"] == "missing"}),
        "errors": sorted({f"{row['method']}: {row['error']}" for row in found if "error" in row}),
    }
