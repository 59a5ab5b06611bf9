"""The games of `map.py`: heads of the embedded model ablated on prompts of three tasks, and the exact table of all pairs of each, kept between runs (see `kept.py`)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.kept import Kept
from jobs.bench.rows import say
from raysp.datasets.tasks import make
from raysp.game import Game
from raysp.lenses.mechanistic import build_mechanistic_game, tokens
from raysp.masks import Masks, Values
from raysp.sampling.ablations import pair_ablations, single_ablations
from raysp.specs.explorers import Keep
from raysp.specs.lenses import MechanisticLens, Task

#: The tasks whose prompts take turns, and the number of prompts that a map has by default.
TASKS: tuple[Task, ...] = ("ioi", "facts", "greater-than")
PROMPTS = 10
#: Masks of a block: what an interrupted job can lose.
BLOCK = 512
#: Prompts drawn for each task, of which a map takes the first ones.
DRAWN = 8


@dataclass(frozen=True)
class Table:
    """Pairs int64 `(k, 2)`, i before j, and the float64 values of the intact input, without i `(n,)`, and without both `(k,)`."""

    pairs: Any
    intact: float
    without: Values
    without_both: Values

    @property
    def deviations(self) -> Values:
        """v(all) - v(without both), minus the effects of both, `(k,)`."""
        effects = self.intact - self.without
        return self.intact - self.without_both - effects[self.pairs].sum(axis=1)

    def to_arrow(self, task: str, prompt: str) -> pa.Table:
        """A row for each pair."""
        first, second = self.pairs.T
        count = len(self.pairs)
        return pa.table({
            "task": [task] * count, "prompt": [prompt] * count, "a": first, "b": second, "all": np.full(count, self.intact),
            "without_a": self.without[first], "without_b": self.without[second], "without_both": self.without_both, "deviation": self.deviations,
        })  # fmt: skip


def every_pair(n: int) -> Any:
    """All pairs of n components, int64 `(n (n - 1) / 2, 2)`."""
    return np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)


@dataclass
class MapGame:
    """A game whose values are kept. `name` is shown, `task` and `prompt` are columns of the map, `keep` is the P(keep) that runs have by default."""

    name: str
    task: str
    prompt: str
    build: Callable[[], Game]
    root: Path | None = None
    keep: Keep | None = None
    seconds_left: float | None = field(default=None)

    @cached_property
    def game(self) -> Game:
        """The lens's game; the model is loaded when it is first needed."""
        return self.build()

    @cached_property
    def values(self) -> Kept:
        """Values of masks, `(m,)`."""
        return Kept(lambda: self.game.info.fingerprint, lambda masks: self.game.measure(masks).values, BLOCK, self.root, self._progress)

    def __call__(self, masks: Masks) -> Values:
        """Values of masks, measured or read."""
        return self.values(masks)

    def _progress(self, kept: Kept, done: int, total: int) -> None:
        self.seconds_left = (total - done) * kept.seconds / kept.paid
        if total > BLOCK:
            say(f"{self.name}: {done:,} of {total:,} masks, {self.seconds_left / 60:.1f} min left")

    @cached_property
    def table(self) -> Table:
        """All pairs, measured exactly; a job that was interrupted continues with the next block."""
        n = self.game.n
        pairs = every_pair(n)
        values = self(np.concatenate([single_ablations(n), pair_ablations(n, pairs)]))
        return Table(pairs, float(values[0]), values[1 : n + 1], values[n + 1 :])

    def write(self, folder: Path) -> Path:
        """Write the table as Parquet in one step: a file is there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.parquet"
        partial = path.with_suffix(".partial")
        pq.write_table(self.table.to_arrow(self.task, self.prompt), partial)
        partial.replace(path)
        return path

    @cached_property
    def value_seconds(self) -> float:
        """Seconds of an evaluation of a pair, as measured in a block of them."""
        n = self.game.n
        rng = np.random.default_rng(0)
        pairs = every_pair(n)
        masks = pair_ablations(n, np.sort(rng.choice(pairs, min(BLOCK // 4, len(pairs)), replace=False), axis=1))
        self.game.measure(masks[:4])
        began = time.process_time()
        self.game.measure(masks)
        return (time.process_time() - began) / len(masks)


def lens_games(prompts: int, heads: str) -> list[MapGame]:
    """The first prompts of the map, tasks taking turns; `heads` are layers such as 12-17, or all."""
    components = "heads" if heads == "all" else f"heads:{heads}"
    count = tokens(MechanisticLens(task="ioi", dtype="float32", components=components))
    drawn = {task: make(task, max(DRAWN, -(-prompts // len(TASKS))), 0, count) for task in TASKS}
    found: list[MapGame] = []
    for number in range(prompts):
        task = TASKS[number % len(TASKS)]
        question = drawn[task][number // len(TASKS)]
        lens = MechanisticLens(prompt=question.prompt, target=question.target, foil=question.foil, components=components, dtype="float32")
        name = f"{task}-{number // len(TASKS)}-heads-{heads}"
        found.append(MapGame(name, task, question.prompt, lambda lens=lens: build_mechanistic_game(lens), keep=lens.default_keep))
    return found
