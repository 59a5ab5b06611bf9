"""What an operator sees of a run on the Ray dashboard and in Prometheus: names, tasks and metrics."""

import os
import signal
import threading
import time
import urllib.request
from collections import Counter

import pytest
import ray
from answered_games import N, planted
from ray.util.state import list_actors, list_tasks
from services import actors
from waiting import until

import raysp
from raysp.runtime.metric_definitions import METRICS

#: Methods that are called several times a second, and would bury all others.
POLLS = {"exchange", "beat", "follow", "states", "store_call", "pulse", "holding"}
#: Metrics of what this run does not do: two runs that ask for the same at the same time, a mask that is given up, models that read tokens.
ELSEWHERE = {"raysp_duplicates_saved", "raysp_quarantined_masks", "raysp_tokens"}


def published():
    """The names of the metrics that all nodes show to Prometheus."""
    found = set()
    for node in ray.nodes():
        with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            found |= {line.partition("{")[0] for line in page.read().decode().splitlines() if line.startswith("ray_raysp_")}
    return found


@pytest.mark.cluster
def test_a_run_is_recognised_by_its_tasks_actors_and_metrics_and_polls_are_hidden(cluster, tmp_path):
    kills, seen = tmp_path / "kills", set()
    kills.mkdir()

    def fatal(masks):
        time.sleep(0.4)  # long enough for R2, which is known only between rounds, to be published
        before = [each.stat().st_mtime for each in kills.iterdir()]
        # Not just once: what is added to a counter once can be lost (see `ServiceMetrics`).
        if len(masks) > 2 and len(before) < 3 and time.time() - max(before, default=0.0) > 2:
            (kills / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    lens = raysp.FunctionLens(fatal, n=N, batch_masks=16)
    spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=400, max_order=3), seed=7, store=str(tmp_path / "ray.duckdb"))
    wanted, ended = {each.shown for each in METRICS if each.name not in ELSEWHERE}, threading.Event()

    def look():
        while not ended.wait(0.3):  # some are there only while a run is under way
            seen.update(published())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        raysp.run(spec, run_id="shown")
        raysp.run(spec, run_id="again")
        ended.wait(5)  # what was counted last is published a moment later
    finally:
        ended.set()
        looking.join()
    assert wanted - seen == set()

    def tasks():
        names = Counter(task.name for task in list_tasks(address=cluster.address, limit=10_000, raise_on_missing_output=False))
        return names if any(name.startswith("measure function masks of shown") for name in names) else None

    names = until("the tasks of the run", tasks)
    assert {"execute shown: function lens, proxyspex", "describe of a function game for shown"} <= names.keys()
    assert names["measure function masks of shown"] > 2
    assert not {name for name in names if name.rpartition(".")[2] in POLLS}
    shown = {actor.name: actor.repr_name for actor in list_actors(address=cluster.address, detail=True) if actor.name in actors()}
    assert shown["raysp:scheduler"] == "raysp:scheduler (queue of runs, stores, orders to evaluators)"
    assert {text for name, text in shown.items() if name.startswith("raysp:runner:")} == {
        f"{name} (executes one run after the other)" for name in actors("raysp:runner:")
    }
    assert {text for name, text in shown.items() if name.startswith("raysp:evaluator:")} == {
        f"{name} (holds models and measures masks, 1 CPU)" for name in actors("raysp:evaluator:")
    }
