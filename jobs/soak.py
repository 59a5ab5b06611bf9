"""Mixed runs of all lenses on a service whose processes are killed at random: what was lost (nothing) and what was paid for twice.

    python jobs/soak.py --minutes 10

Small questions of the lenses feature, mechanistic, data and function are answered once undisturbed, in the calling process. Then they are submitted together,
round after round, to a Ray of several raylets, while evaluators, runners and the scheduler are killed by SIGKILL, and nodes are lost and replaced. Each round has a store of its own. Afterwards
its runs must have ended with the same evaluations, single effects, interactions and validations. One JSON line for each round and a summary last; exit code 1 if
anything was lost or differs.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for jobs.bench, as a script's own folder is searched instead

from jobs.bench.service import Load, service  # noqa: E402
from jobs.bench.service_games import RELEVANT, waiting  # noqa: E402
from raysp.explorers import ProxySPEX  # noqa: E402
from raysp.runs.local import LocalEngine  # noqa: E402
from raysp.specs.lenses import FunctionLens  # noqa: E402
from raysp.specs.run import RunSpec, load_spec, resolve  # noqa: E402
from raysp.store import Store  # noqa: E402
from raysp.validation import Validation  # noqa: E402

#: Questions of jobs/specs, and what makes them small.
SMALL: dict[str, dict[str, Any]] = {
    "feature": {"explorer": {"budget": 150}},
    "mechanistic": {"explorer": {"budget": 100}, "lens": {"components": "heads:15-15"}, "cross_check": False},
    "data": {"explorer": {"budget": 24, "keep": 0.5}, "lens": {"limit": 10, "query_count": 2, "epochs": 1, "adapted_layers": "last:1"}},
}
VALIDATION = {"heldout": 20, "top": 2, "random": 1, "low_pairs": 2}
#: Tables that must not depend on what was killed, and the columns that name a row.
SAME = {"singles": "component", "interactions": "rank", "validations": "labels"}
NODE = "node"
#: Processes that are killed, by the beginning of their actor's name, and nodes that are lost and replaced, and how often relative to each other.
VICTIMS = {"raysp:evaluator:": 6, "raysp:runner:": 2, "raysp:scheduler": 1, NODE: 2}


def questions(store: Path, threads: int = 1) -> dict[str, RunSpec]:
    """One small question of each lens, and one whose batches take as long as those of a larger model."""
    found: dict[str, RunSpec] = {}
    for name, changes in SMALL.items():
        spec = load_spec(ROOT / f"jobs/specs/{name}.yaml").model_dump(mode="json", exclude_none=True)
        for part, values in changes.items():
            spec[part] = {**spec[part], **values} if isinstance(values, dict) else values
        spec |= {"validation": VALIDATION, "store": str(store), "threads": threads}
        spec["explorer"] |= {"proxy": "linear", "max_order": 2}
        spec["lens"] |= {"dtype": "float32", "device": "cpu"}
        found[name] = resolve(RunSpec.model_validate(spec))
    lens = FunctionLens(waiting(0.3), n=RELEVANT + 4, name="waiting", batch_masks=16)
    found["function"] = RunSpec(
        lens=lens, explorer=ProxySPEX(proxy="linear", max_order=2, budget=600).options, validation=Validation(**VALIDATION), store=str(store), threads=threads
    )
    return found


class Killer:
    """Kills one of the service's processes now and then, or replaces a node."""

    def __init__(self, load: Load, every: float, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self._load = load
        self._every, self._random = every, random.Random(seed)  # noqa: S311

    def kill_until(self, done: "Future[Any]") -> None:
        """Kill until something is done. In the main thread, as Ray starts nodes in no other."""
        while not wait([done], timeout=self._random.expovariate(1 / self._every)).done:
            self._kill()

    def _kill(self) -> None:
        import ray
        from ray.exceptions import RayError

        prefix = self._random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        if prefix == NODE:
            self._replace_node()
            return
        named: Any = ray.util.list_named_actors(all_namespaces=True)
        names = [actor for actor in named if actor["name"].startswith(prefix)]
        if not names:
            return
        actor = self._random.choice(sorted(names, key=lambda each: each["name"]))
        try:
            pid: Any = ray.get(ray.get_actor(actor["name"], actor["namespace"]).__ray_call__.remote(_pid), timeout=2)
            os.kill(pid, signal.SIGKILL)
            self.kills[prefix.split(":")[1]] += 1
        except (RayError, ValueError, ProcessLookupError, TimeoutError):
            return  # it is busy, or dead already

    def _replace_node(self) -> None:
        """Lose a node as a machine does that loses its power, and add another one."""
        nodes = self._load.nodes
        nodes.remove_node(self._random.choice([node for node in nodes.list_all_nodes() if node is not nodes.head_node]), allow_graceful=False)
        self._load.add_node()
        self.kills[NODE] += 1


def answer_of(store: Path, run_id: str) -> dict[str, Any]:
    """What a run found: its evaluations by mask, and its answer."""
    with Store.read(store) as reading:
        rows = reading.run_evaluations(run_id)
        masks = np.packbits(reading.run_masks(run_id), axis=1)
        values = rows["value"].to_numpy()
        tables = {name: reading.run_table(name, run_id) for name in SAME}
        paid = reading.sql("SELECT run_id, sum(evaluations) AS paid FROM run_costs GROUP BY run_id").to_pylist()
    return {
        "evaluations": dict(zip((row.tobytes() for row in masks), values.tolist(), strict=True)),
        "tables": tables,
        "paid": next((float(row["paid"] or 0) for row in paid if row["run_id"] == run_id), 0.0),
    }


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What a disturbed run lost of the undisturbed one's evaluations, what differs, and what it paid for twice."""
    lost = wanted["evaluations"].keys() - found["evaluations"].keys()
    differ = sum(not np.isclose(value, found["evaluations"].get(mask, value), rtol=1e-4, atol=1e-4) for mask, value in wanted["evaluations"].items())
    tables = [name for name in SAME if not _same(wanted["tables"][name], found["tables"][name])]
    return {"lost": len(lost), "differ": differ, "tables": tables, "paid_twice": found["paid"] - wanted["paid"]}


def rounds(load: Load, folder: Path, until: float, wanted: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rounds of all questions until the time is over."""
    found: list[dict[str, Any]] = []
    while time.monotonic() < until or not found:
        place = folder / f"round-{len(found)}.duckdb"
        specs = {name: spec.model_copy(update={"name": name, "evaluators": load.workers}) for name, spec in questions(place).items()}
        ids = dict(zip(specs, load.start(*specs.values()), strict=True))
        row: dict[str, Any] = {"round": len(found), "failed": []}
        try:
            load.wait(list(ids.values()))
        except RuntimeError as error:
            row["failed"].append(str(error))
        results = {name: compare(wanted[name], answer_of(place, run_id)) for name, run_id in ids.items()} if not row["failed"] else {}
        for figure in ("lost", "differ", "paid_twice"):
            row[figure] = sum(result[figure] for result in results.values())
        row["tables"] = [f"{name}.{table}" for name, result in results.items() for table in result["tables"]]
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def main() -> int:
    """Answer the questions undisturbed, then under kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long rounds are started (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="number of evaluators, a multiple of 4 (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="mean seconds between kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kills (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = folder / "undisturbed.duckdb"
        with LocalEngine() as local:
            for lens, spec in questions(reference).items():
                local.run(spec, f"undisturbed-{lens}")
        wanted = {lens: answer_of(reference, f"undisturbed-{lens}") for lens in questions(reference)}
        with service(given.workers) as load:
            killer = Killer(load, given.every, given.seed)
            with ThreadPoolExecutor(1) as asking:
                under_way = asking.submit(rounds, load, folder, time.monotonic() + 60 * given.minutes, wanted)
                killer.kill_until(under_way)
            found = under_way.result()
    summary: dict[str, Any] = {"rounds": len(found), "runs": len(found) * len(wanted), "kills": dict(killer.kills)}
    summary |= {figure: sum(row[figure] for row in found) for figure in ("lost", "differ", "paid_twice")}
    summary |= {figure: [each for row in found for each in row[figure]] for figure in ("failed", "tables")}
    print(json.dumps(summary))
    return int(bool(summary["lost"] or summary["differ"] or summary["failed"] or summary["tables"]))


def _same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same rows, numbers to four digits."""
    if one.num_rows != other.num_rows:
        return False
    for name in one.column_names:
        mine, others = one[name].to_pylist(), other[name].to_pylist()
        if mine and isinstance(next((value for value in mine if value is not None), None), float):
            if not np.allclose(np.array(mine, dtype=float), np.array(others, dtype=float), rtol=1e-3, atol=1e-3, equal_nan=True):
                return False
        elif mine != others:
            return False
    return True


def _pid(_: Any) -> int:
    return os.getpid()


if __name__ == "__main__":
    sys.exit(main())
