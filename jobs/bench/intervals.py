"""Coverage, false discoveries and power of ProxySPEX's intervals on games with known coefficients, one JSON line each.

    python -m jobs.bench intervals [--quick] [--proxy auto]

`coverage` is the share of planted coefficients that their 95% intervals hold, `false_runs` the share of purely additive games with noise in which any
interaction of order 2 or more is called significant, and `power` the share of planted interactions that are, by size and by noise (in standard
deviations of the game): the price of the control of false discoveries. Summary last.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import raysp
from jobs.bench.engine_games import fourier_sum, hierarchical_terms, noisy_sum

N, TERMS, MASKS = 24, 40, 800
NOISES = (0.1, 0.3, 0.5, 1.0)
#: Planted interactions by size, relative to the standard deviation of the game.
SIZES = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, np.inf))


def uniform(count: int, seed: int) -> Any:
    """Masks that keep half of the components on average."""
    return np.random.default_rng([seed, 1]).random((count, N)) < 0.5


def planted(proxy: str, noise: float, seed: int) -> dict[str, Any]:
    """One planted game: intervals that hold their coefficient, interactions called significant by size, and those that do not exist."""
    terms = hierarchical_terms(N, TERMS, 1000 + seed)
    masks = uniform(MASKS, seed)
    values = fourier_sum(terms)(masks)
    spread = float(values.std())
    values = values + noise * spread * np.random.default_rng([seed, 2]).normal(size=MASKS)
    table = raysp.ProxySPEX(proxy=proxy, random_state=seed).fit(masks, values).interactions("fourier", min_order=1).to_pylist()
    found = {tuple(row["components"]): row for row in table}
    truth = {tuple(sorted(members)): value for members, value in dict(terms).items() if len(members)}
    held = [row["lo"] <= truth[members] <= row["hi"] for members, row in found.items() if members in truth]
    significant = {members for members, row in found.items() if row["significant"] and len(members) > 1}
    power = {}
    for least, most in SIZES:
        wanted = {members for members, value in truth.items() if len(members) > 1 and least <= abs(value) / spread < most}
        power[f"{least:g}+"] = (len(wanted & significant), len(wanted))
    return {"held": sum(held), "reported": len(held), "false": len(significant - truth.keys()), "called": len(significant), "power": power}


def additive(proxy: str, seed: int) -> bool:
    """Whether an interaction is called significant in an additive game with noise."""
    masks = uniform(400, 500 + seed)
    table = raysp.ProxySPEX(proxy=proxy, random_state=seed).fit(masks, noisy_sum(N, seed)(masks)).interactions("fourier", min_order=2)
    return bool(np.any(table["significant"].to_numpy(zero_copy_only=False)))


def rows(proxy: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    """One row per level of noise, then one on additive games."""
    for noise in NOISES[1:2] if quick else NOISES:
        found = [planted(proxy, noise, seed) for seed in range(3 if quick else 10)]
        power = {size: [sum(each["power"][size][i] for each in found) for i in (0, 1)] for size in found[0]["power"]}
        yield {
            "row": "planted",
            "noise": noise,
            "coverage": sum(each["held"] for each in found) / sum(each["reported"] for each in found),
            "false_share": sum(each["false"] for each in found) / max(sum(each["called"] for each in found), 1),
            "power": {size: hit / wanted if wanted else None for size, (hit, wanted) in power.items()},
        }
    hits = [additive(proxy, seed) for seed in range(10 if quick else 40)]
    yield {"row": "additive", "runs": len(hits), "false_runs": sum(hits) / len(hits)}


def main() -> None:
    """Print the rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one level of noise, fewer games")
    parser.add_argument("--proxy", default="auto")
    options = parser.parse_args()
    told = []
    for row in rows(options.proxy, quick=options.quick):
        told.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    least = min(row["coverage"] for row in told if row["row"] == "planted")
    false = next(row["false_runs"] for row in told if row["row"] == "additive")
    summary = {"coverage": least, "coverage_met": least >= 0.93, "false_runs": false, "false_runs_met": false <= 0.05}
    sys.stdout.write(json.dumps({"row": "summary", "proxy": options.proxy, **summary}) + "\n")
