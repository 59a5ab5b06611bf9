"""Runners that take long to start, as they do on a loaded machine, are not taken for lost ones."""

import time

import pytest
import ray

from raysp.runtime import runner_pool
from raysp.runtime.runner_pool import RunnerPool


@pytest.fixture
def pool():
    made = RunnerPool(lambda: None)
    made._number = 900  # names that no run of the service has
    yield made
    for name in list(made.busy):
        made.drop(name)


def test_a_runner_that_is_being_started_says_nothing_and_one_without_a_job_says_so(pool, monkeypatch):
    name = pool._start()
    monkeypatch.setattr(runner_pool, "HOLDING_SECONDS", 0.0)
    assert pool.check(name) == (True, None)
    monkeypatch.setattr(runner_pool, "HOLDING_SECONDS", 120.0)
    assert pool.check(name) == (True, False)
    ray.kill(pool._actors[name], no_restart=True)
    deadline = time.monotonic() + 60
    while pool.check(name) != (False, None):
        assert time.monotonic() < deadline
