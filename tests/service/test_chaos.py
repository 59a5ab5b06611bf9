"""Real SIGKILLs of every kind of process while a run is under way: the answer is that of an undisturbed run, and what was stored is not measured again."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from answered_games import N, planted
from services import actors, pid_of

import raysp
from raysp.runs.result import read_result
from raysp.runtime.runner import RUNNER
from raysp.runtime.scheduler import NAME, scheduler

BATCH, EVALUATORS = 16, 2
#: What an evaluator may have been given and not answered: two leases, each of at most one batch.
IN_FLIGHT = 2 * EVALUATORS * BATCH
DRIVER = """
import sys, time
import raysp
sys.path.insert(0, sys.argv[2])
from answered_games import planted

def slow(masks):
    time.sleep(0.1)
    return planted(masks)

def watch(progress):
    if progress.phase == "explore" and progress.done > 100:
        print("at work", flush=True)

import answered_games
from ray import cloudpickle
cloudpickle.register_pickle_by_value(answered_games)
lens = raysp.FunctionLens(slow, n=12, batch_masks=16)
raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=500, max_order=3), seed=5, store=sys.argv[1]), run_id="orphan", watch=watch)
"""


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The answer of an undisturbed run."""
    store = tmp_path_factory.mktemp("calm") / "calm.duckdb"
    return raysp.run(question(store, planted).model_copy(update={"local": True}))


def question(store, function):
    lens = raysp.FunctionLens(function, n=N, batch_masks=BATCH)
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=500, max_order=3), seed=5, store=str(store))


def slow_for(folder):
    """A game that takes its time, and notes which processes measure."""

    def slow(masks):
        (folder / f"evaluator-{os.getpid()}").touch()
        time.sleep(0.1)
        return planted(masks)

    return slow


def once(condition, act):
    """A watcher that acts the first time that the condition holds."""
    done = []

    def watch(progress):
        if not done and condition(progress):
            done.append(act())

    watch.done = done
    return watch


def halfway(progress):
    return progress.phase == "explore" and progress.done > 100


def undisturbed(result, calm, *, deaths):
    """The same answer, with at most the batches in flight at each death paid for twice."""
    columns = ["mask", "value"]
    assert result.evaluations.select(columns).sort_by("value").equals(calm.evaluations.select(columns).sort_by("value"))
    assert result.interactions.equals(calm.interactions)
    paid, least = (sum(each.costs["evaluations"].to_pylist()) for each in (result, calm))
    assert least <= paid <= least + deaths * IN_FLIGHT
    assert result.summary["status"] == "done"


@pytest.mark.chaos
def test_evaluators_that_are_killed_again_and_again(cluster, calm, tmp_path):
    over, killed = threading.Event(), []

    def kill():
        while not over.wait(1.0):
            for path in tmp_path.glob("evaluator-*"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.name.split("-")[1]), signal.SIGKILL)
                    killed.append(path.name)
                path.unlink()
                break

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        result = raysp.run(question(tmp_path / "s.duckdb", slow_for(tmp_path)))
    finally:
        over.set()
        thread.join()
    assert len(killed) >= 2
    undisturbed(result, calm, deaths=len(killed))
    assert "retried" in result.events["kind"].to_pylist()


@pytest.mark.chaos
def test_a_runner_that_is_killed(cluster, calm, tmp_path):
    def kill():
        for name in actors(RUNNER):  # one of them may be a spare
            os.kill(pid_of(name, "control"), signal.SIGKILL)

    watch = once(halfway, kill)
    result = raysp.run(question(tmp_path / "s.duckdb", slow_for(tmp_path)), watch=watch)
    assert watch.done
    undisturbed(result, calm, deaths=1)


@pytest.mark.chaos
def test_a_scheduler_that_is_killed_twice(cluster, calm, tmp_path):
    def kill():
        os.kill(pid_of(NAME, "clients"), signal.SIGKILL)

    first, second = once(halfway, kill), once(lambda progress: progress.phase in {"explore", "validate"}, kill)

    def watch(progress):
        if first.done:  # the scheduler that came back is killed as soon as it shows progress
            second(progress)
        first(progress)

    result = raysp.run(question(tmp_path / "s.duckdb", slow_for(tmp_path)), watch=watch)
    assert first.done
    assert second.done
    undisturbed(result, calm, deaths=2)


@pytest.mark.chaos
def test_a_scheduler_that_is_killed_after_the_driver_that_submitted_the_run(cluster, calm, tmp_path):
    """Nobody is left who asked; the run goes on to its end."""
    store = tmp_path / "s.duckdb"
    script = [sys.executable, "-c", DRIVER, str(store), str(Path(__file__).parents[1])]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=os.environ | {"RAY_ADDRESS": cluster.address}) as driver:
        assert next((line for line in driver.stdout if line == "at work\n"), None)
        driver.kill()
    os.kill(pid_of(NAME, "clients"), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(ray.exceptions.RayActorError):
            state = ray.get(scheduler().states.remote(["orphan"]), timeout=60)[0]
            if state.ended:
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state.status == "done"
    with raysp.Store.read(store) as reading:
        undisturbed(read_result(reading, "orphan"), calm, deaths=1)
