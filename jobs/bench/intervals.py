"""Coverage, false discoveries and power of ProxySPEX's intervals on games with known coefficients, one JSON line each.

    python -m jobs.bench intervals [--quick] [--proxy auto]

`coverage` is the share of planted coefficients that their 95% intervals hold, `false_runs` the share of purely additive games with noise in which any
interaction of order 2 or more is called significant, and `power` the share of planted interactions that are, by size and by noise (in standard
deviations of the game): the price of the control of false discoveries. Rows `scattered` are sums without hierarchy or noise, of which so few masks are
measured that a surrogate shrinks what it does not understand; `r2` is its out-of-fold R². Summary last.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import raysp
from jobs.bench.engine_games import Terms, fourier_sum, hierarchical_terms, noisy_sum, scattered_terms

N, TERMS, MASKS = 24, 40, 800
NOISES = (0.1, 0.3, 0.5, 1.0)
#: Components of a sum without hierarchy, and masks measured of it.
SCATTERED_N, SCATTERED_MASKS = 32, (200, 350, 500)
#: Planted interactions by size, relative to the standard deviation of the game.
SIZES = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, np.inf))


def uniform(count: int, seed: int, n: int = N) -> Any:
    """Masks that keep half of the components on average."""
    return np.random.default_rng([seed, 1]).random((count, n)) < 0.5


def planted(proxy: str, terms: Terms, masks: Any, noise: float, seed: int) -> dict[str, Any]:
    """One game: intervals that hold their coefficient, interactions called significant by size, and those that do not exist."""
    values = fourier_sum(terms)(masks)
    spread = float(values.std())
    values = values + noise * spread * np.random.default_rng([seed, 2]).normal(size=len(masks))
    explorer = raysp.ProxySPEX(proxy=proxy, random_state=seed).fit(masks, values)
    found = {tuple(row["components"]): row for row in explorer.interactions("fourier", min_order=1).to_pylist()}
    truth = {tuple(sorted(members)): value for members, value in dict(terms).items() if len(members)}
    held = [row["lo"] <= truth[members] <= row["hi"] for members, row in found.items() if members in truth]
    significant = {members for members, row in found.items() if row["significant"] and len(members) > 1}
    power = {}
    for least, most in SIZES:
        wanted = {members for members, value in truth.items() if len(members) > 1 and least <= abs(value) / spread < most}
        power[f"{least:g}+"] = (len(wanted & significant), len(wanted))
    r2 = explorer.findings.diagnostics["r2_cv"]
    return {"held": sum(held), "reported": len(held), "false": len(significant - truth.keys()), "called": len(significant), "power": power, "r2": r2}


def additive(proxy: str, seed: int) -> bool:
    """Whether an interaction is called significant in an additive game with noise."""
    masks = uniform(400, 500 + seed)
    table = raysp.ProxySPEX(proxy=proxy, random_state=seed).fit(masks, noisy_sum(N, seed)(masks)).interactions("fourier", min_order=2)
    return bool(np.any(table["significant"].to_numpy(zero_copy_only=False)))


def told(games: list[dict[str, Any]]) -> dict[str, Any]:
    """What several games have in common."""
    power = {size: [sum(game["power"][size][i] for game in games) for i in (0, 1)] for size in games[0]["power"]}
    return {
        "coverage": sum(game["held"] for game in games) / sum(game["reported"] for game in games),
        "false_share": sum(game["false"] for game in games) / max(sum(game["called"] for game in games), 1),
        "power": {size: hit / wanted if wanted else None for size, (hit, wanted) in power.items()},
        "r2": float(np.mean([game["r2"] for game in games])),
    }


def rows(proxy: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    """One row per level of noise, one per number of masks of sums without hierarchy, then one on additive games."""
    seeds = range(3 if quick else 10)
    for noise in NOISES[1:2] if quick else NOISES:
        games = [planted(proxy, hierarchical_terms(N, TERMS, 1000 + seed), uniform(MASKS, seed), noise, seed) for seed in seeds]
        yield {"row": "planted", "noise": noise, **told(games)}
    for count in SCATTERED_MASKS[-1:] if quick else SCATTERED_MASKS:
        masks = [uniform(count, seed, SCATTERED_N) for seed in seeds]
        games = [planted(proxy, scattered_terms(SCATTERED_N, TERMS, 1000 + seed), masks[seed], 0.0, seed) for seed in seeds]
        yield {"row": "scattered", "masks": count, **told(games)}
    hits = [additive(proxy, seed) for seed in range(10 if quick else 40)]
    yield {"row": "additive", "runs": len(hits), "false_runs": sum(hits) / len(hits)}


def main() -> None:
    """Print the rows, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one level of noise, fewer games")
    parser.add_argument("--proxy", default="auto")
    options = parser.parse_args()
    found = []
    for row in rows(options.proxy, quick=options.quick):
        found.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    least = min(row["coverage"] for row in found if row["row"] != "additive")
    false = next(row["false_runs"] for row in found if row["row"] == "additive")
    summary = {"coverage": least, "coverage_met": least >= 0.93, "false_runs": false, "false_runs_met": false <= 0.05}
    sys.stdout.write(json.dumps({"row": "summary", "proxy": options.proxy, **summary}) + "\n")
