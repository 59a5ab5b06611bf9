"""Rankings of pairs by the methods of `map.py`, the recall of the strongest pairs, and the goal: arithmetic on exact tables, budgets and prices."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jobs.bench.engine_targets import target
from jobs.bench.map_games import MapGame, every_pair
from raysp.explorers import Explorer, ProxySPEX, Screen
from raysp.lenses.gate_gradients import slopes
from raysp.lenses.mechanistic import MechanisticGame
from raysp.masks import Masks, Values
from raysp.sampling.ablations import pair_ablations, single_ablations

Row = dict[str, Any]

#: Numbers of strongest pairs to find; the goal's, with its share of the price.
TOPS, GOAL_TOP, GOAL_SHARE, GOAL_RECALL = (20, 50), 20, 0.05, 0.9
#: Explorers by their names.
EXPLORERS: Mapping[str, Callable[[int], Explorer]] = {
    "proxyspex both": lambda budget: ProxySPEX(budget=budget, focus="both", slopes="off"),
    "proxyspex intact": lambda budget: ProxySPEX(budget=budget, focus="intact", slopes="off"),
    "proxyspex both, slopes": lambda budget: ProxySPEX(budget=budget, focus="both"),
    "proxyspex intact, slopes": lambda budget: ProxySPEX(budget=budget, focus="intact"),
    "screen": lambda budget: Screen(budget=budget, slopes="off"),
    "screen, slopes": lambda budget: Screen(budget=budget),
}


def recall(exact: Values, guessed: Values, top: int) -> float:
    """The share of the `top` strongest pairs by exact deviations `(k,)` that are among as many strongest by a method's scores `(k,)`; 0 is not named."""

    def strongest(strength: Values) -> set[int]:
        order = np.argsort(-strength, kind="stable")[:top]
        return set(order[strength[order] > 0].tolist())

    wanted = strongest(np.abs(exact))
    return len(wanted & strongest(np.abs(guessed))) / max(len(wanted), 1)


def verified(exact: Values, guessed: Values, count: int) -> Values:
    """Scores once the `count` strongest pairs by a method have been measured: their exact deviations, and 0 for the others."""
    scores = np.zeros(len(exact))
    chosen = np.argsort(-np.abs(guessed), kind="stable")[: max(count, 0)]
    scores[chosen] = exact[chosen]
    return scores


def gradient_scores(game: MapGame) -> Iterator[tuple[str, Values, float]]:
    """Methods by gradients: name, scores of all pairs, and the price in evaluations, by processor seconds.

    First-order ones score a pair by the product of its gates' effects. Second-order ones take the change of these once the other is removed, averaged over both.
    """
    lens = game.game
    assert isinstance(lens, MechanisticGame)
    n, pairs = lens.n, every_pair(lens.n)
    for name, relevance in (("attribution patching", False), ("RelP", True)):
        slopes(lens.mask_tree, lens.reading, np.ones((1, n)), relevance=relevance)  # the first pass pays for warming up
        began = time.process_time()
        intact = slopes(lens.mask_tree, lens.reading, np.ones((1, n)), relevance=relevance)[1][0]
        first = time.process_time() - began
        yield name, intact[pairs].prod(axis=1), first / game.value_seconds
        began = time.process_time()
        changes = slopes(lens.mask_tree, lens.reading, single_ablations(n)[1:].astype(np.float64), relevance=relevance)[1] - intact
        seconds = first + time.process_time() - began
        both = (changes + changes.T) / 2
        yield f"{name}, second order", both[pairs[:, 0], pairs[:, 1]], seconds / game.value_seconds


def explorer_scores(game: MapGame, name: str, budget: int, price: float, seed: int = 0) -> tuple[Values, float]:
    """Deviations of all pairs by an explorer's surrogate, and the evaluations that it spent, a value with slopes counted by its `price`."""
    n, pairs = game.game.n, every_pair(game.game.n)
    started, spent = EXPLORERS[name](budget).start(n, seed, keep=game.keep), 0.0
    started = started.with_slopes(price) if started.uses_slopes else started
    while not started.done():
        masks, sloped = started.ask(), started.asks_slopes
        if sloped:
            found = game.game.measure(masks, slopes=True)
            started.tell(masks, found.values, slopes=found.slopes)
        else:
            started.tell(masks, game(masks))
        spent += len(masks) * (price if sloped else 1.0)
    surrogate = started.result().surrogate
    return deviations(surrogate.predict, n, pairs), spent


def deviations(values: Callable[[Masks], Values], n: int, pairs: Any) -> Values:
    """Deviations of pairs from additivity at the intact input, `(k,)`, of a function of masks."""
    near = values(single_ablations(n))
    effects = near[0] - near[1:]
    return near[0] - values(pair_ablations(n, pairs)) - effects[pairs].sum(axis=1)


def rows(game: MapGame, shares: Iterable[float], names: Iterable[str]) -> Iterator[Row]:
    """A row for each method and share of the price; methods by gradients have one as they are, and one for each share with the strongest pairs measured."""
    exact, n = game.table.deviations, game.game.n
    told: Row = {"row": "recall", "game": game.name, "task": game.task, "heads": n, "pairs": len(exact)}
    price = 2.0
    for name, scores, cost in gradient_scores(game):
        price = cost / (n + 1) if name == "attribution patching, second order" else price
        yield told | {"method": name, "share": None, "price": cost / len(exact), **_recalls(exact, scores)}
        for share in shares:
            # What is left after the estimate and the single effects, which a deviation needs.
            count = int(share * len(exact) - cost) - n - 1
            if count > 0:
                found = _recalls(exact, verified(exact, scores, count))
                yield told | {"method": f"{name}, measured", "share": share, "price": share, **found}
    for name in names:
        for share in shares:
            budget = int(share * len(exact))
            if budget < EXPLORERS[name](budget).least_budget(n):
                yield told | {"method": name, "share": share, "missing": f"needs {EXPLORERS[name](budget).least_budget(n)} evaluations, not {budget}"}
                continue
            began = time.process_time()
            scores, spent = explorer_scores(game, name, budget, price)
            seconds = time.process_time() - began
            yield told | {"method": name, "share": share, "price": spent / len(exact), "seconds": seconds, **_recalls(exact, scores)}


def _recalls(exact: Values, scores: Values) -> Row:
    return {f"recall_{top}": recall(exact, scores, top) for top in TOPS}


def summary(found: Iterable[Row]) -> Row:
    """Means over prompts by method and share, and the goal: the best method's recall of the strongest 20 among those that cost at most 5 %, on all heads."""
    means: dict[tuple[int, str, float | None], list[Row]] = defaultdict(list)
    for row in found:
        if row.get("recall_20") is not None:
            means[row["heads"], row["method"], row["share"]].append(row)
    figures: list[Row] = [
        {"heads": heads, "method": method, "share": share, "prompts": len(each)}
        | {name: round(float(np.mean([row[name] for row in each])), 4) for name in ("price", "recall_20", "recall_50")}
        for (heads, method, share), each in means.items()
    ]
    most = max((figure["heads"] for figure in figures), default=0)
    # A run may spend a fraction of an evaluation more than its budget.
    cheap = [figure for figure in figures if figure["heads"] == most and figure["price"] <= GOAL_SHARE * 1.001]
    best: Row = max(cheap, key=lambda figure: figure["recall_20"], default={})
    goal = target(best.get("recall_20"), f">= {GOAL_RECALL}")
    return {
        "row": "summary",
        "heads": most,
        "goal": goal | {"method": best.get("method"), "of_20": None if not best else best["recall_20"] * GOAL_TOP},
        "means": figures,
    }
