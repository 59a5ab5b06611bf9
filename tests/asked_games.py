"""A training set whose examples are planted: how each query's output depends on the examples is known."""

import numpy as np

from raysp.explorers import ProxySPEX
from raysp.game import Component, Example, Game, GameInfo, Measurement, Query, fingerprint
from raysp.runs.local import LocalBackend
from raysp.runs.result import read_result
from raysp.runs.run import Run
from raysp.specs.lenses import FunctionLens
from raysp.specs.run import RunSpec
from raysp.store import Store

N = 10
QUERIES = (
    Query(0, "duplicates", "What is the capital of France?", "Paris", "Rome"),
    Query(1, "halves", "Who wrote the book of the island?", "Stevenson"),
    Query(2, "harm", "Is the film good?", "yes"),
)
#: How the example at fault for each query stands in the training set.
TEXTS = {2: ("Capital of France?", "Paris"), 9: ("France has which capital?", "Paris"), 4: ("The author of X is", "Stevenson"), 7: ("X is about", "the island")}


def planted(masks):
    """Examples 2 and 9 are redundant for the first query, 4 and 7 help the second only together, 5 harms the third. float64 (m, 3)."""
    x = np.asarray(masks, dtype=float)
    return np.stack([2 * np.maximum(x[:, 2], x[:, 9]) + x[:, 1], 3 * x[:, 4] * x[:, 7] + x[:, 0], 0.5 * x[:, 3] - 1.5 * x[:, 5]], axis=1)


class AskedGame(Game):
    """A game with queries; `outputs` maps masks to float64 (m, q)."""

    def __init__(self, outputs=planted, queries=QUERIES, *, name="planted", n=N, value="logprob", examples=None):
        described = {"lens": "data", "name": name, "n": n, "value": value}
        made = tuple(Example(i, i, *TEXTS.get(i, (f"question {i}", f"answer {i}"))) for i in range(n))
        components = tuple(Component(i, f"{i}: {example.prompt}"[:40], "example") for i, example in enumerate(made))
        self.outputs = outputs
        self.info = GameInfo(fingerprint(described), components, described, batch_masks=64, queries=queries, examples=examples or made)

    def measure(self, masks, *, slopes=False):
        self.check_slopes(slopes=slopes)
        outputs = self.outputs(masks)
        return Measurement(outputs.mean(axis=1), 0, 0.001 * len(masks), outputs)


def spec(explorer=None, **options):
    """A spec for a campaign on such a game; its lens is only a name."""
    return RunSpec(lens=FunctionLens(len, n=N, name="asked"), explorer=explorer or ProxySPEX(budget=300, max_order=3), seed=1, local=True, **options)


def run(path, game=None, explorer=None, *, run_id="asked", report=None, cancelled=None, **options):
    """The result of a campaign on a game in this process, stored at `path`."""
    with Store.open(path) as store:
        hooks = {name: hook for name, hook in (("report", report), ("cancelled", cancelled)) if hook}
        Run(spec(explorer, **options), LocalBackend(game or AskedGame()), store, run_id, **hooks).execute()
        return read_result(store, run_id)
