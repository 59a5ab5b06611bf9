"""What Prometheus is told, seen where it is given to Ray."""

import pytest
from ray.util.metrics import Gauge

from raysp.runs.state import EvaluatorState
from raysp.runtime.metrics import ServiceMetrics, Totals
from raysp.scheduling import BrokerState

NOTHING = {"served": {}, "leases": 0, "duplicates_saved": 0, "retries": 0, "quarantined": 0, "unwanted": 0}


@pytest.fixture
def told(monkeypatch):
    """What gauges were set to, by name and label."""
    found = {}
    monkeypatch.setattr(Gauge, "set", lambda gauge, value, tags=None: found.update({(gauge.info["name"], *(tags or {}).values()): value}))
    return found


def state(**queued):
    return BrokerState(queued=queued, in_flight={}, shared={}, **NOTHING)


def test_what_is_gone_is_zero_and_not_what_it_was_last(told):
    metrics = ServiceMetrics()

    def publish(queue, runs, *evaluators):
        told.clear()
        metrics.publish(Totals(), queue, runs=runs, progress=(), evaluators=evaluators, lost=0)

    publish(state(first=5), {"running": 1}, EvaluatorState("e0", "busy", "n", ("m",)))
    assert (told["raysp_queue_depth", "first"], told["raysp_evaluators", "busy"], told["raysp_resident_models", "m"]) == (5, 1, 1)
    publish(state(second=3), {"done": 1}, EvaluatorState("e0", "idle", "n", ()))
    assert (told["raysp_queue_depth", "first"], told["raysp_queue_depth", "second"]) == (0, 3)
    assert (told["raysp_evaluators", "busy"], told["raysp_evaluators", "idle"]) == (0, 1)
    assert (told["raysp_runs", "running"], told["raysp_runs", "done"], told["raysp_resident_models", "m"]) == (0, 1, 0)
    publish(state(), {"done": 1})
    assert ("raysp_queue_depth", "first") not in told
