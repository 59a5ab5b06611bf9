"""A real Prometheus reads a real service: every panel shows data, every alert can be evaluated, and those that the runs deserve fire.

Not made here: GPUs without work, and a node whose own disk is nearly full. The rules' unit tests have both (`rules_test.yml`).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from answered_games import N, planted
from ray._private import worker
from ray._private.ray_constants import AGENT_PROCESS_TYPE_DASHBOARD_AGENT, PROCESS_TYPE_RAYLET, PROMETHEUS_SERVICE_DISCOVERY_FILE
from services import actors, joined, pid_of
from tiny_models import save
from waiting import until
from watched import PANELS, RULES, RULES_FILE, Prometheus, hurried

import raysp

if shutil.which("prometheus") is None:
    pytest.skip("Prometheus is not installed: apt-get install prometheus", allow_module_level=True)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """A node of eight cores, as evaluators of functions need next to nothing."""
    with joined(tmp_path_factory, 8) as nodes:
        yield nodes


@pytest.fixture
def watched(tmp_path):
    """Start a Prometheus that has these rules."""
    started = []

    def start(rules):
        discovery = Path(worker.global_worker.node.get_temp_dir_path()) / PROMETHEUS_SERVICE_DISCOVERY_FILE
        started.append(Prometheus(tmp_path, discovery, rules))
        started[-1].wait(lambda server: server.values('up{job="ray"} == 1'))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 MB, which can be filled and frozen."""
    image, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    for words in (("mkfs.ext4", "-q", image), ("mount", "-o", "loop", image, place)):
        if shutil.which(words[0]) is None or subprocess.run(words, check=False).returncode:
            pytest.skip(f"a disk of one's own cannot be made here: {words[0]}")
    yield place
    subprocess.run(("umount", "--lazy", place), check=True)


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


def question(store, function, name=None, **more):
    lens = raysp.FunctionLens(function, n=N, name=name or function.__name__, batch_masks=16)
    return raysp.RunSpec(
        **{"lens": lens, "explorer": raysp.ProxySPEX(budget=400, max_order=3), "seed": 5, "evaluators": 2, "threads": 1, "store": str(store)} | more
    )


def test_every_panel_shows_data_and_the_alerts_that_are_deserved_fire(watched, tmp_path):
    prometheus, store = watched(RULES_FILE.read_text()), tmp_path / "watched.duckdb"
    wanted = Wanted(prometheus, {query.expression for panel in PANELS if not panel.only_with_gpus for query in panel.queries})
    wanted.start()
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="Her acting never fails", target=" not", foil="!", dtype="float32")
    for _ in range(2):  # the second finds everything in the store
        raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), evaluators=1, threads=1, store=str(store)))

    def slow(masks):
        time.sleep(0.25)
        x = np.asarray(masks, dtype=float)
        return 3 * x[:, 1] + 4 * x[:, 4] * x[:, 7]

    with ThreadPoolExecutor() as together:
        list(together.map(raysp.run, [question(store, slow)] * 2))
    assert not prometheus.firing().keys() & {"RayspEvaluatorsFailing", "RayspMasksGivenUp", "RayspRunStalled", "RayspStoreLag"}

    def fatal(masks):
        if any(not mask[3] and not mask[5] for mask in np.asarray(masks)):
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    with pytest.raises(raysp.EvaluationError):
        raysp.run(question(store, fatal))
    wanted.join(30)
    assert not wanted.missing
    alerts = prometheus.wait(lambda server: (found := server.firing()).keys() >= {"RayspEvaluatorsFailing", "RayspMasksGivenUp"} and found)
    assert int(alerts["RayspEvaluatorsFailing"]["annotations"]["summary"].split()[0]) >= 3
    assert all("{{" not in text and "<no value>" not in text for alert in alerts.values() for text in alert["annotations"].values())
    for rule in RULES:
        prometheus.values(rule["expr"])
    health = {rule["name"]: (rule["health"], rule.get("lastError")) for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert health == {rule["alert"]: ("ok", None) for rule in RULES}


@contextlib.contextmanager
def stopped(pid):
    """A process does nothing within the block, as if its machine hung."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def frozen(place):
    """Whoever writes to a disk waits within the block."""
    subprocess.run(("fsfreeze", "--freeze", place), check=True)
    try:
        yield
    finally:
        subprocess.run(("fsfreeze", "--unfreeze", place), check=True)


def test_alerts_fire_for_runs_that_deserve_them(cluster, watched, disk, tmp_path):
    """A second is a minute for the rules."""
    prometheus, gate, begun = watched(hurried(RULES_FILE.read_text())), tmp_path / "gate", tmp_path / "begun"
    begun.mkdir()

    def fires(*names):
        prometheus.wait(lambda server: set(names) <= server.firing().keys(), seconds=90)

    def waiting(masks):
        if len(masks) > 2:
            (begun / str(os.getpid())).touch()
        while len(masks) > 2 and not gate.exists():  # the first order of a run, for everything and nothing, is answered
            time.sleep(0.05)
        return planted(masks)

    def slow(masks):
        time.sleep(0.2)
        return planted(masks)

    raysp.run(question(tmp_path / "first.duckdb", slow, evaluators=None))  # from now on there are eight evaluators
    with ThreadPoolExecutor() as beside, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(gate.touch)  # whatever fails, no run waits for ever
        runs = [beside.submit(raysp.run, question(disk / "small.duckdb", waiting, evaluators=1))]
        hung = int(until("an evaluator that waits", lambda: list(begun.iterdir()))[0].name)
        filling = disk / "filling"
        subprocess.run(("fallocate", "--length", str(shutil.disk_usage(disk).free - (4 << 20)), filling), check=True)
        with stopped(hung):
            fires("RayspStoreDiskNearlyFull")
            for name in ("second", "third"):
                runs.append(beside.submit(raysp.run, question(disk / "small.duckdb", waiting, name, evaluators=1)))
                time.sleep(6)
            fires("RayspQueueGrowsWhileEvaluatorsAreIdle")
            fires("RayspRunStalled", "RayspEvaluatorsSilent")
        filling.unlink()
        with frozen(disk):
            gate.touch()
            fires("RayspStoreLag")
        for each in runs:
            assert each.result(120).summary["status"] == "done"

        under_way = threading.Event()
        runs = [beside.submit(raysp.run, question(tmp_path / "slow.duckdb", slow), watch=lambda progress: progress.done and under_way.set())]
        assert under_way.wait(60)
        [runner] = [name for name in actors("raysp:runner") if ray.get(ray.get_actor(name).holding.remote())]
        with stopped(pid_of(runner, "control")):
            runs.append(beside.submit(raysp.run, question(tmp_path / "slow.duckdb", planted, threads=2)))  # no evaluator has two threads
            fires("RayspRunsWaitWhileEvaluatorsAreIdle")
        for each in runs:
            assert each.result(120).summary["status"] == "done"

    node = cluster.add_node(num_cpus=0)
    prometheus.wait(lambda server: len(server.values('up{job="ray"} == 1')) > 1)
    raylet = psutil.Process(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid)
    [agent] = [each for each in raylet.children() if each.cmdline()[0] == AGENT_PROCESS_TYPE_DASHBOARD_AGENT]
    with stopped(agent.pid):
        fires("RayNodeUnreachable")
    cluster.remove_node(node)
