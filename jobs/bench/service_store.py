"""What a large store costs: bytes of an evaluation, and the time of a query, of looking up a batch, of a commit and of a snapshot."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.rows import say
from raysp.game import Component, GameInfo, fingerprint
from raysp.masks import Masks, unpack
from raysp.store import Addition, Store

N = 256
#: Masks of a batch, batches of a commit, and runs that ask about the same game.
BATCH, GROUP, SHARING = 64, 40, 10
INTERACTIONS, HELDOUT = 50, 100
TRIES = 100


def rows(evaluations: int, runs: int) -> Iterator[dict[str, Any]]:
    """The rows of a store with so many evaluations in so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.duckdb"
        with Store.open(path) as store:
            began = time.perf_counter()
            build(store, evaluations, runs)
            built = time.perf_counter() - began
        size = path.stat().st_size
        with Store.open(path) as store:
            yield {
                "part": "store",
                "evaluations": evaluations,
                "runs": runs,
                "bytes_per_evaluation": size / evaluations,
                "stored_per_s": evaluations / built,
                **_measure(store),
            }


def build(store: Store, evaluations: int, runs: int, seed: int = 0) -> None:
    """Fill an empty store with finished runs of games with 256 components, as a service would: many small batches, each commit of several."""
    rng = np.random.default_rng(seed)
    each = evaluations // runs
    for number in range(runs):
        run_id, game_id = f"run-{number:06d}", start(store, number)
        for done in range(0, each, BATCH * GROUP):
            sizes = [min(BATCH, each - at) for at in range(done, min(each, done + BATCH * GROUP), BATCH)]
            store.add_many([_batch(rng, run_id, game_id, size, in_round) for in_round, size in enumerate(sizes)])
        store.finish_run(run_id, "done", {"verdict": "reliable", "r2": 0.9}, singles=_singles(rng), interactions=_interactions(rng), heldout=_heldout(rng))
        if number % 100 == 99:
            say(f"service: store, {number + 1} of {runs} runs")


def start(store: Store, number: int) -> int:
    """Start a run and return the id of its game."""
    description = {"lens": "function", "name": f"bench {number // SHARING}", "n": N}
    components = tuple(Component(i, f"word {i}", "word", 8 * i, 8 * i + 7, 1) for i in range(N))
    info = GameInfo(fingerprint(description), components, description, source="")
    return store.start_run(f"run-{number:06d}", json.dumps({"seed": number}), info, lens="feature", explorer="proxyspex", seed=number, name=f"bench {number}")


def _masks(rng: np.random.Generator, count: int) -> Masks:
    return unpack(rng.integers(0, 256, (count, N // 8), dtype=np.uint8), N)


def _values(rng: np.random.Generator, count: int) -> Any:
    return rng.normal(size=count).astype(np.float32).astype(np.float64)  # models compute in float32


def _batch(rng: np.random.Generator, run_id: str, game_id: int, size: int, in_round: int) -> Addition:
    return Addition(run_id, "explore", _masks(rng, size), _values(rng, size), in_round, tokens=300 * size, seconds=0.01 * size, game_id=game_id)


def _singles(rng: np.random.Generator) -> pa.Table:
    return pa.table({"component": pa.array(range(N), pa.int32()), "value": _values(rng, N), "method": ["removed"] * N})


def _interactions(rng: np.random.Generator) -> pa.Table:
    sets = [sorted(rng.choice(N, 2, replace=False).tolist()) for _ in range(INTERACTIONS)]
    value = _values(rng, INTERACTIONS)
    columns = {"components": pa.array(sets, pa.list_(pa.int32())), "index": ["bii"] * INTERACTIONS, "value": value}
    return pa.table(
        {**columns, "lo": value - 0.1, "hi": value + 0.1, "significant": [True] * INTERACTIONS, "kind": ["synergy"] * INTERACTIONS, "estimate": value}
    )


def _heldout(rng: np.random.Generator) -> pa.Table:
    masks = rng.integers(0, 256, (HELDOUT, N // 8), dtype=np.uint8)
    columns = {"mask": pa.array([mask.tobytes() for mask in masks], pa.binary())}
    return pa.table({**columns, **{name: _values(rng, HELDOUT) for name in ("predicted", "predicted_singles", "exact")}})


def _measure(store: Store) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    some = store.run_masks("run-000000")
    game_id = store.game_id("run-000000")
    began = time.perf_counter()
    store.known(game_id, some[:1])
    indexed = time.perf_counter() - began

    def commit() -> None:
        store.add_many([_batch(rng, "run-000000", game_id, BATCH, 1000)])

    def snapshot() -> float:
        began = time.perf_counter()
        store.publish()
        return time.perf_counter() - began

    return {
        "query_p95_ms": _p95(lambda: store.sql("SELECT * FROM top_interactions LIMIT 10")),
        "index_s": indexed,
        "known_p95_ms": _p95(lambda: store.known(game_id, some[rng.choice(len(some), BATCH)])),
        "commit_p95_ms": _p95(commit),
        "first_snapshot_s": snapshot(),
        "next_snapshot_s": (commit(), snapshot())[1],
    }


def _p95(action: Callable[[], object]) -> float:
    """The 95th percentile of the time that an action takes, in milliseconds."""
    took: list[float] = []
    for _ in range(TRIES):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    return float(np.quantile(took, 0.95))
