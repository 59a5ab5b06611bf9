"""Progress is that of a run as a whole, and of several runs as one."""

import itertools

import numpy as np

import raysp
from raysp.runs.progress import Progress, SetProgress, Tally


def test_evaluations_count_against_all_that_the_run_will_ask_for():
    clock = iter([0.0, 4.0, 4.0, 10.0, 12.0, 12.0])
    tally = Tally({"explore": 100, "validate": 20}, clock=lambda: next(clock))
    tally.begin("explore", 60)
    tally.add(20, reused=True)
    tally.add(40, reused=False)
    assert tally.figures() == {"done": 60, "total": 120, "reused": 20, "rate": 10.0, "left": 6.0}
    tally.pause()
    tally.settle("explore")  # it stopped early
    tally.begin("validate", 20)  # after 6 s of fitting, which are not measuring
    tally.add(20, reused=False)
    assert tally.figures() == {"done": 80, "total": 80, "reused": 20, "rate": 10.0, "left": 0.0}


def test_a_phase_may_ask_for_more_than_was_expected():
    tally = Tally({"explore": 10})
    tally.begin("explore", 8)
    tally.begin("explore", 8)
    assert tally.figures()["total"] == 16


def test_a_run_reports_one_count_from_its_first_evaluation_to_its_last():
    seen: list[Progress] = []
    lens = raysp.FunctionLens(lambda masks: masks.sum(axis=1) + 2.0 * masks[:, 0] * masks[:, 1], n=8, batch_masks=16)
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=120).options, local=True), watch=seen.append)
    counted = [progress for progress in seen if progress.total]
    assert all(one.done <= other.done <= other.total for one, other in itertools.pairwise(counted))
    assert {progress.phase for progress in counted} == {"explore", "analyse", "validate", "done"}
    first, last = counted[0], counted[-1]
    assert first.total >= 120
    assert last.done == last.total
    assert last.done - last.reused == sum(result.costs["evaluations"].to_pylist())


def test_runs_that_have_not_started_are_expected_to_be_as_large_as_the_others():
    together = SetProgress(["a", "b", "c", "d"])
    together.observe(0, Progress("a", "done", 100, 100))
    found = together.observe(1, Progress("b", "explore", 50, 100, reused=10, rate=25.0, warnings=("short",)))
    assert (found.phase, found.done, found.total, found.reused, found.rate, found.left) == ("1 of 4 runs", 150, 400, 10, 25.0, 10.0)
    assert found.warnings == ("b: short",)
    assert np.isfinite(found.left)
