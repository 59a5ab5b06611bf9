"""One large fit in a process of its own, for its peak of memory: `python -m jobs.bench.engine_big N MASKS PROXY` prints one JSON line."""

import json
import resource
import sys
import time
from pathlib import Path

from jobs.bench.engine_games import BenchGame, fourier_sum, hierarchical_terms
from jobs.bench.engine_methods import explorer
from jobs.bench.engine_peers import MAX_ORDER, TRAIN, Task, uniform


def peak() -> float:
    """The most memory that this process has had resident, in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage's figure includes the peak of the parent process, with its models.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def main(n: int, count: int, proxy: str) -> None:
    """Fit, and print seconds, peak and held-out R²."""
    game = BenchGame("big", "planted", n, fourier_sum(hierarchical_terms(n, 60, n)), (count,))
    masks = uniform(game, count, TRAIN, 0)
    values = game(masks)
    # Imports are not part of a fit's time.
    few = uniform(BenchGame("warm", "planted", 6, game.function, ()), 60, TRAIN, 0)
    explorer("ProxySPEX", proxy=proxy, max_order=2).fit(few, few @ range(6))
    started = explorer("ProxySPEX", proxy=proxy, max_order=MAX_ORDER)
    began = time.perf_counter()
    started.fit(masks, values)
    seconds = time.perf_counter() - began
    held = Task(game, count, 0).held_out()
    print(json.dumps({"n": n, "masks": count, "seconds": seconds, "peak_gib": peak(), "r2": started.score(*held)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
