"""The store of a service at a given number of rows and runs: bytes for each evaluation, how long questions and snapshots take, and what a short run pays for the size."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.rows import say
from jobs.bench.service_games import waiting_lens
from raysp.game import Component, GameInfo, fingerprint
from raysp.masks import unpack
from raysp.runs.local import LocalEngine
from raysp.specs.explorers import SinglesOptions
from raysp.specs.run import RunSpec
from raysp.store import Store
from raysp.store.additions import Addition

N = 256
#: Masks of a batch, and batches that are committed together.
BATCH, GROUP = 100, 100
#: Interactions that each run reports.
INTERACTIONS = 100
QUESTIONS = 40
#: Short runs whose time is compared with that in an empty store.
SHORT_RUNS = 5
TOP = "SELECT labels, kind, value, lo, hi, exact FROM top_interactions LIMIT 10"
ONE = "SELECT labels, value FROM top_interactions WHERE run_id = '{run}' LIMIT 10"


def rows(evaluations: int, runs: int) -> Iterator[dict[str, Any]]:
    """One row: a store filled by so many runs of one game each, measured while it is open."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "bench.duckdb") as store:
        began = time.perf_counter()
        _fill(store, evaluations, runs)
        filled = time.perf_counter() - began
        asked = _questions(store, runs) | _snapshots(store)
        store.close()
        size = sum(path.stat().st_size for path in Path(folder).iterdir() if path.name.startswith("bench.duckdb"))
        asked["short_run_in_full_store"] = _short_run(Path(folder) / "bench.duckdb") / _short_run(Path(folder) / "empty.duckdb")
        yield {
            "part": "store",
            "evaluations": evaluations,
            "runs": runs,
            "n": N,
            "stored_per_s": evaluations / filled,
            "bytes_per_evaluation": size / evaluations,
            **asked,
        }


def _fill(store: Store, evaluations: int, runs: int) -> None:
    """Store random masks of each run, in batches, and an answer with interactions."""
    each = evaluations // runs
    for number in range(runs):
        info = _game(number)
        run_id = f"run-{number:04}"
        store.start_run(run_id, '{"seed": 0}', info, lens="function", explorer="proxyspex", seed=0)
        rng = np.random.default_rng(number)
        for start in range(0, each, GROUP * BATCH):
            count = min(GROUP * BATCH, each - start)
            masks = unpack(rng.integers(0, 256, (count, N // 8), dtype=np.uint8), N)
            values = rng.normal(size=count)
            store.add_many(
                [Addition(run_id, "explore", masks[i : i + BATCH], values[i : i + BATCH], tokens=BATCH, seconds=0.05) for i in range(0, count, BATCH)]
            )
        store.finish_run(run_id, "done", {"r2": 0.9, "verdict": "ok"}, interactions=_interactions(rng))
        if number % max(1, runs // 10) == 0:
            say(f"store: {number} of {runs} runs")


def _questions(store: Store, runs: int) -> dict[str, float]:
    """95th percentiles of the milliseconds that questions take: the strongest interactions of the newest run and of any run, and 64 masks looked up."""
    rng = np.random.default_rng(0)
    newest, any_run, known = [], [], []
    for _ in range(QUESTIONS):
        number = int(rng.integers(runs))
        newest.append(_milliseconds(lambda: store.sql(TOP)))
        any_run.append(_milliseconds(lambda number=number: store.sql(ONE.format(run=f"run-{number:04}"))))
        game_id = store.game_id(f"run-{number:04}")
        masks = unpack(rng.integers(0, 256, (64, N // 8), dtype=np.uint8), N)
        known.append(_milliseconds(lambda game_id=game_id, masks=masks: store.known(game_id, masks)))
    return {"query_p95_ms": _p95([*newest, *any_run]), "known_p95_ms": _p95(known)}


def _snapshots(store: Store) -> dict[str, float]:
    """Seconds that the first snapshot for readers takes, and one after ten thousand more evaluations."""
    first = _milliseconds(store.publish) / 1000
    masks = unpack(np.random.default_rng(1).integers(0, 256, (GROUP * BATCH, N // 8), dtype=np.uint8), N)
    store.add_many([Addition("run-0000", "explore", masks[i : i + BATCH], np.zeros(BATCH)) for i in range(0, len(masks), BATCH)])
    return {"first_snapshot_s": first, "next_snapshot_s": _milliseconds(store.publish) / 1000}


def _short_run(path: Path) -> float:
    """The median of the seconds that a run of 64 masks takes in this process, opening and closing the store included."""
    taken: list[float] = []
    for number in range(SHORT_RUNS + 1):
        lens = waiting_lens(f"short-{number}", N, BATCH, 0.05)
        spec = RunSpec(lens=lens, explorer=SinglesOptions(budget=64), store=str(path), threads=1)

        def run(spec: RunSpec = spec, number: int = number) -> None:
            with LocalEngine() as local:
                local.run(spec, f"short-{number}")

        taken.append(_milliseconds(run) / 1000)
    return median(taken[1:])


def _game(number: int) -> GameInfo:
    description = {"lens": "function", "name": f"bench-{number}", "n": N}
    return GameInfo(fingerprint(description), tuple(Component(i, f"component {i}", "component") for i in range(N)), description)


def _interactions(rng: np.random.Generator) -> pa.Table:
    """Random pairs as a run reports them."""
    values = rng.normal(size=INTERACTIONS)
    return pa.table(
        {
            "components": [sorted(rng.choice(N, 2, replace=False).tolist()) for _ in range(INTERACTIONS)],
            "order": [2] * INTERACTIONS,
            "index": ["bii"] * INTERACTIONS,
            "value": values,
            "lo": values - 0.1,
            "hi": values + 0.1,
            "significant": (np.abs(values) > 0.2).tolist(),
            "kind": ["synergy"] * INTERACTIONS,
            "verified": [False] * INTERACTIONS,
        }
    )


def _milliseconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _p95(values: list[float]) -> float:
    return float(np.quantile(values, 0.95))
