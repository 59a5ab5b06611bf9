"""A real Prometheus reads a real service: every panel shows data, every alert can be evaluated, and those that the runs deserve fire."""

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from answered_games import N, planted
from ray._private import ray_constants, worker
from services import joined
from tiny_models import save
from watched import PANELS, RULES, Prometheus

import raysp

if shutil.which("prometheus") is None:
    pytest.skip("Prometheus is not installed: apt-get install prometheus", allow_module_level=True)

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """A node of two cores."""
    with joined(tmp_path_factory, 2) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def prometheus(cluster, tmp_path_factory):
    discovery = Path(worker.global_worker.node.get_temp_dir_path()) / ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE
    started = Prometheus(tmp_path_factory.mktemp("prometheus"), discovery)
    started.wait(lambda server: server.values('up{job="ray"} == 1'))
    yield started
    started.stop()


class Wanted(threading.Thread):
    """Looks again and again which expressions have data, as those of runs have only while these are under way."""

    def __init__(self, prometheus, expressions):
        super().__init__(daemon=True)
        self._prometheus, self.missing = prometheus, set(expressions)

    def run(self):
        with contextlib.suppress(OSError):  # the server has ended, and so has the test
            while self.missing:
                self.missing -= {each for each in self.missing if self._prometheus.values(each)}
                time.sleep(0.3)


def question(tmp_path, function, budget=400):
    lens = raysp.FunctionLens(function, n=N, batch_masks=16)
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=budget, max_order=3), seed=5, store=str(tmp_path / "watched.duckdb"))


def test_every_panel_shows_data_and_the_alerts_that_are_deserved_fire(prometheus, tmp_path):
    wanted = Wanted(prometheus, {query.expression for panel in PANELS if not panel.only_with_gpus for query in panel.queries})
    wanted.start()
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="Her acting never fails", target=" not", foil="!", dtype="float32")
    for _ in range(2):  # the second finds everything in the store
        raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), store=str(tmp_path / "watched.duckdb")))

    def slow(masks):
        time.sleep(0.25)
        x = np.asarray(masks, dtype=float)
        return 3 * x[:, 1] + 4 * x[:, 4] * x[:, 7]

    beside = threading.Thread(target=raysp.run, args=[question(tmp_path, slow, budget=300)])
    beside.start()
    raysp.run(question(tmp_path, slow))
    beside.join()
    assert not prometheus.firing().keys() & {"RayspEvaluatorsFailing", "RayspMasksGivenUp", "RayspRunStalled", "RayspStoreLag"}

    def fatal(masks):
        if any(not mask[3] and not mask[5] for mask in np.asarray(masks)):
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    with pytest.raises(raysp.EvaluationError):
        raysp.run(question(tmp_path, fatal))
    wanted.join(30)
    assert not wanted.missing
    alerts = prometheus.wait(lambda server: (found := server.firing()).keys() >= {"RayspEvaluatorsFailing", "RayspMasksGivenUp"} and found)
    assert int(alerts["RayspEvaluatorsFailing"]["annotations"]["summary"].split()[0]) >= 3
    assert all("{{" not in text and "<no value>" not in text for alert in alerts.values() for text in alert["annotations"].values())
    for rule in RULES:
        prometheus.values(rule["expr"])
    health = {rule["name"]: (rule["health"], rule.get("lastError")) for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert health == {rule["alert"]: ("ok", None) for rule in RULES}
