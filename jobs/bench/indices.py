"""Accuracy of interaction indices against exact tables: raysp and every estimator that the installed shapiq has, each on masks of its own, one JSON line a row.

    python -m jobs.bench indices [--quick] [--games words-12,heads-13] [--seeds 3] [--output FILE]

A game is the embedded model on 12 or 13 components, all of whose masks are measured once and kept (see `kept.py`). `error` is the squared error of an index over
all components (sv) or pairs, relative to the squared norm of the exact index; for `intact` it is the unexplained variance of v(all) - v(all without a pair). The
summary has, by index and budget, the geometric mean over games and seeds of raysp and of its best peer.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import raysp
from jobs.bench.engine_model_games import QUESTION, REVIEW, SENTENCES, Heads, Prompt, lens
from jobs.bench.engine_peers import UnavailableError, package, quiet
from jobs.bench.kept import Kept
from jobs.bench.rows import write_all
from raysp.masks import Masks, Values
from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.walsh import all_masks, numbers

BUDGETS, QUICK_BUDGETS = (100, 200, 400, 800, 1600), (100, 400)
REVIEW_12 = "The movie was not bad at all because her acting never fails"
#: The sentences of the question about Ada that are kept, and the heads (layer and head) that can be ablated: those that matter most alone.
SENTENCES_12 = (0, 2, 3, 4, 5, 7, 9, 12, 13, 15, 17, 18)
PROMPT, NAME, OTHER = "When Mary and John went to the store, John gave a drink to", " Mary", " John"
LAYERS, MANY_HEADS = tuple(range(12, 18)), 13
#: Our index option by index; with each, the order of its sets.
INDICES = {"sv": 1, "sii": 2, "bii": 2, "fbii": 2}
#: shapiq's estimators by index; those that an installation lacks are skipped.
PEERS = {
    "sv": ("KernelSHAP", "LeverageSHAP", "RegressionMSR", "OddSHAP", "PolySHAP", "ProxySHAP", "ProxySHAP corrected"),
    "sii": ("KernelSHAPIQ", "SVARMIQ", "SHAPIQ", "ProxySHAP", "ProxySHAP corrected"),
    "bii": ("ProxySHAP", "ProxySHAP corrected"),
    "fbii": ("RegressionFBII", "ProxySHAP"),
}


class SomeHeads:
    """The heads that matter most alone; all others are kept."""

    def __init__(self) -> None:
        self._heads = Heads(LAYERS, PROMPT, NAME, OTHER)

    @cache  # noqa: B019  one object, as long as the process
    def _chosen(self) -> Any:
        width = len(LAYERS) * self._heads.loaded.model.config.num_attention_heads
        values = self._heads(ablations(width, [(), *((i,) for i in range(width))]))
        return width, np.sort(np.argsort(-np.abs(values[1:] - values[0]), kind="stable")[:MANY_HEADS])

    def name(self) -> str:
        """A name of everything that the values depend on."""
        return f"{self._heads.name()}-{'-'.join(map(str, self._chosen()[1]))}"

    def __call__(self, masks: Masks) -> Values:
        """Logit difference of the two names."""
        width, chosen = self._chosen()
        every = np.ones((len(masks), width), dtype=np.bool_)
        every[:, chosen] = masks
        return self._heads(every)


def games() -> dict[str, tuple[int, Callable[[], Any]]]:
    """The number of components and the function of each game; nothing is loaded before a value is requested."""
    born = " ".join(SENTENCES.split(". ")[i].rstrip(".") + "." for i in SENTENCES_12)
    asked = {"question": "In which city was Ada born?", "unit": "sentence"}
    return {
        "words-12": (12, lambda: lens(REVIEW_12, REVIEW, " positive", " negative")),
        "sentences-12": (12, lambda: lens(born, "{prompt}" + QUESTION, " Lisbon", " Oslo", **asked)),
        "heads-13": (MANY_HEADS, SomeHeads),
    }


class Exact:
    """A game's complete table, and its exact indices."""

    def __init__(self, n: int, game: Prompt | SomeHeads) -> None:
        self.n, self.masks = n, all_masks(n)
        self.values = Kept(game.name, game)(self.masks)
        self.surrogate = FourierSurrogate.from_values(self.masks, self.values)

    def __call__(self, masks: Any) -> Values:
        """Values of masks."""
        return self.values[numbers(np.asarray(masks).astype(np.bool_))].copy()

    def of(self, surrogate: FourierSurrogate, index: str) -> dict[tuple[int, ...], float]:
        """An index of a surrogate by set, of the order of `INDICES`."""
        sets, values, _ = surrogate.index(index, INDICES[index], INDICES[index])
        return dict(zip(sets.tuples(), values.tolist(), strict=True))

    def error(self, found: dict[tuple[int, ...], float], index: str) -> float:
        """The relative squared error of an index."""
        truth = self.of(self.surrogate, index)
        return sum((found.get(members, 0.0) - value) ** 2 for members, value in truth.items()) / sum(value**2 for value in truth.values())

    def unexplained(self, surrogate: FourierSurrogate) -> float:
        """The unexplained variance of v(all) - v(all without a pair)."""
        pairs = ablations(self.n, [(i, j) for i in range(self.n) for j in range(i + 1, self.n)])
        exact, found = self(pairs), surrogate.predict(pairs)
        return float(((found - exact) ** 2).sum() / ((exact - exact.mean()) ** 2).sum())


def ours(exact: Exact, index: str, budget: int, seed: int, focus: str) -> FourierSurrogate:
    """The surrogate of a run that reports the index."""
    started = raysp.ProxySPEX(budget=budget, index=index, focus=focus, max_order=5).start(exact.n, seed)
    while not started.done():
        masks = started.ask()
        started.tell(masks, exact(masks))
    return started.result().surrogate


def theirs(exact: Exact, peer: str, index: str, budget: int, seed: int) -> dict[tuple[int, ...], float]:
    """An index by an estimator of shapiq. UnavailableError if it is not there."""
    approximators, name = package("shapiq.approximator"), peer.split(maxsplit=1)[0]
    if not hasattr(approximators, name):
        raise UnavailableError(f"the installed shapiq has no {name}")
    order = INDICES[index]
    options: dict[str, Any] = {"n": exact.n, "random_state": seed} | ({"adjustment": True} if "corrected" in peer else {})
    if name not in {"KernelSHAP", "LeverageSHAP", "RegressionMSR", "OddSHAP", "PolySHAP", "RegressionFBII"}:
        options |= {"index": index.upper(), "max_order": order}
    if name == "RegressionFBII":
        options |= {"max_order": order}
    with quiet():
        values = getattr(approximators, name)(**options).approximate(budget=budget, game=exact)
    return {tuple(sorted(members)): float(values[members]) for members in exact.of(exact.surrogate, index)}


def rows(names: list[str], seeds: int, budgets: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """A row for each game, index, method, budget and seed; an estimator that fails has its error."""
    for name in names:
        n, build = games()[name]
        exact = Exact(n, build())
        for budget in budgets:
            for seed in range(seeds):
                where = {"game": name, "budget": budget, "seed": seed}
                for index in INDICES:
                    surrogate = ours(exact, index, budget, seed, "average")
                    yield where | {"index": index, "method": "raysp", "error": exact.error(exact.of(surrogate, index), index)}
                    for peer in PEERS[index]:
                        try:
                            yield where | {"index": index, "method": peer, "error": exact.error(theirs(exact, peer, index, budget, seed), index)}
                        except UnavailableError:
                            continue
                        except Exception as failure:  # noqa: BLE001  one estimator's failure is a row
                            yield where | {"index": index, "method": peer, "failed": f"{type(failure).__name__}: {failure}"[:200]}
                both = ours(exact, "bii", budget, seed, "both")
                yield where | {"index": "intact", "method": "raysp", "error": exact.unexplained(both)}


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """By index and budget: the geometric mean of raysp's errors, of the best peer's, its name, and whether raysp is at most as far off."""
    errors: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        if "error" in row:
            errors[row["index"], row["budget"]][row["method"]].append(max(row["error"], 1e-12))
    told: dict[str, Any] = {"row": "summary"}
    for (index, budget), methods in errors.items():
        means = {method: float(np.exp(np.mean(np.log(each)))) for method, each in methods.items()}
        own = means.pop("raysp")
        best = min(means, key=lambda method: means[method]) if means else None
        told[f"{index} {budget}"] = {"raysp": own, "best_peer": best, "peer": means[best] if best else None, "met": own <= means[best] if best else None}
    return told


def main() -> None:
    """Print every row, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one game, two budgets, one seed: under six minutes")
    parser.add_argument("--games", default=",".join(games()), help="the games, with commas (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    chosen = ["words-12"] if options.quick else options.games.split(",")
    found = rows(chosen, 1 if options.quick else options.seeds, QUICK_BUDGETS if options.quick else BUDGETS)
    write_all(({"row": "index"} | row for row in found), summary, options.output)


if __name__ == "__main__":
    main()
