"""Slopes on a real Ray: a run that asks for them is told what one in a single process is, also after it was interrupted and when evaluators die."""

import os
import signal
from functools import partial

import numpy as np
import pytest
from services import actors, pid_of
from sloping_games import Curious, starting, told
from tiny_models import save

import raysp
from raysp.runs.local import local_backend
from raysp.runs.run import Run
from raysp.runtime.backend import ServiceBackend
from raysp.runtime.link import Link
from raysp.runtime.pool import EVALUATOR
from raysp.runtime.scheduler import scheduler
from raysp.runtime.store_proxy import StoreProxy

#: Where batches are cut otherwise a model's sums are made in another order.
NEAR = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    model = save("llama", tmp_path_factory.mktemp("model") / "llama")
    lens = raysp.MechanisticLens(model=model, prompt="Her acting never fails to impress", target=" not", foil="!", components="heads", dtype="float32")
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=96, max_order=2), seed=3)


@pytest.fixture
def curious(monkeypatch):
    """The explorers that runs start."""
    started = []
    monkeypatch.setattr("raysp.runs.run.explorer_of", starting(started))
    return started


@pytest.fixture
def expected(spec, tmp_path, curious):
    """What the explorer of a run in this process is told."""
    with raysp.Store.open(tmp_path / "local.duckdb") as store:
        Run(spec, local_backend(spec.lens), store, "local").execute()
    return told(curious)


def execute(spec, path, report=lambda _: None, cancelled=lambda: False):
    """A run named ray whose loop is in this process, and whose evaluations are the service's."""
    link = Link(scheduler)
    with ServiceBackend(link, spec.lens, session="ray", store=path, cancelled=cancelled) as backend:
        Run(spec, backend, StoreProxy(link, path), "ray", report=report).execute()


def same(found, expected):
    for mine, others in zip(found, expected, strict=True):
        assert len(mine) == len(others) == Curious.rounds
        for one, other in zip(mine, others, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one, other, **NEAR)


def counted(path):
    """The number of evaluations, of slopes, and of evaluations paid for with slopes."""
    with raysp.Store.read(path, age=0.0) as store:
        rows = store.sql("SELECT (SELECT count(*) FROM measurements) AS values, (SELECT count(*) FROM slopes) AS slopes").to_pylist()
        return {**rows[0], "paid": sum(store.run_table("costs", "ray")["with_slopes"].to_pylist())}


def test_a_run_on_ray_is_told_the_slopes_of_one_in_a_single_process(spec, expected, curious, tmp_path):
    path = tmp_path / "ray.duckdb"
    execute(spec, path)
    same(told(curious), expected)
    found = counted(path)
    assert found["slopes"] == found["paid"] == sum(len(rows) for rows in expected[2] if rows is not None)


def test_a_run_that_is_resumed_measures_no_slopes_again(spec, expected, curious, tmp_path):
    path, seen = tmp_path / "ray.duckdb", []

    def stop(progress):
        seen.append(progress.phase == "explore" and progress.done > 40)

    with pytest.raises(raysp.errors.InterruptedRunError):
        execute(spec, path, report=stop, cancelled=partial(any, seen))
    execute(spec, path)
    same(told(curious), expected)
    found = counted(path)
    assert found["slopes"] == found["paid"]


def test_evaluators_that_are_killed_lose_no_slopes(spec, expected, curious, tmp_path):
    killed = []

    def kill(progress):
        if progress.phase == "explore" and progress.done > 30 and not killed:
            for name in actors(EVALUATOR):
                killed.append(name)
                os.kill(pid_of(name, "pulse"), signal.SIGKILL)

    path = tmp_path / "ray.duckdb"
    execute(spec, path, report=kill)
    assert killed
    same(told(curious), expected)
    assert counted(path)["slopes"] == sum(len(rows) for rows in expected[2] if rows is not None)
