"""Who is served when, in simulated time on the real broker."""

import itertools

import numpy as np
import pytest
from orders import Clock, masks_of, measured, order_of

from raysp.scheduling import Broker
from raysp.scheduling.simulation import Job, Pool, Simulation, busy_cluster, main, slowdowns


def alone(job, pool):
    return Simulation([Job(**{**vars(job), "arrival": 0.0})], pool).run().ended[job.name]


def beside(job, others, pool):
    """How long a job takes beside others."""
    return Simulation([job, *others], pool).run(until=[job.name]).ended[job.name] - job.arrival


SHORT = Job("short", 60, 0.05, order_masks=16)
MILLION = Job("long", 1_000_000, 0.0008, order_masks=1250, window=64)


@pytest.mark.parametrize("arrival", [0.0, 30.0, 33.3])
@pytest.mark.parametrize("workers", [2, 8, 32])
def test_a_question_of_60_masks_beside_one_of_a_million_takes_at_most_twice_its_time_alone(workers, arrival):
    pool = Pool(workers)
    short = Job("short", 60, 0.1, arrival, order_masks=max(16, 60 // (2 * workers)))
    long = Job(**{**vars(MILLION), "seconds": 0.0008 * workers, "order_masks": max(1, 1250 // workers)})
    assert beside(short, [long], pool) <= 2 * alone(short, pool)


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("training", [1.0, 5.0])
def test_a_feature_run_beside_a_run_of_trainings_takes_at_most_twice_its_time_alone(workers, training):
    pool = Pool(workers)
    feature = Job("feature", 240 * workers, 0.05, 61.7, order_masks=20)  # 12 s alone
    trainings = Job("trainings", round(120 * workers / training), training, order_masks=1)
    assert beside(feature, [trainings], pool) <= 2 * alone(feature, pool)


def test_a_short_question_waits_for_one_slow_training_at_most():
    pool = Pool(4, unequal=0.0)
    trainings = Job("trainings", 40, 30.0, order_masks=1)
    assert beside(Job("short", 60, 0.05, 61.0, order_masks=16), [trainings], pool) <= 30 + 3 * 1.1


def test_workers_are_busy_all_the_time_beside_trainings_and_short_questions():
    short, long = busy_cluster(8, 60.0, 1)
    outcome = Simulation([*short, *long], Pool(8)).run()
    assert outcome.utilisation > 0.98
    assert outcome.told == sum(job.masks for job in (*short, *long))


def test_runs_that_ask_at_the_same_time_share_and_pay_once():
    pair = [Job(name, 400, 0.01, order_masks=20, game="same") for name in ("ann", "bob")]
    outcome = Simulation(pair, Pool(4)).run()
    assert outcome.measured == 400 == outcome.duplicates_saved
    assert outcome.told == 800


def test_nothing_is_lost_with_workers_that_die_and_dawdle_and_a_mask_that_kills_ends_its_run():
    jobs = [Job(f"run-{i}", 3000, 0.05, arrival=3.0 * i, order_masks=20, game=f"game-{i // 2}", poison=1234 if i > 3 else None) for i in range(6)]
    outcome = Simulation(jobs, Pool(16, stragglers=0.1, lifetime=20.0, restart=2.0)).run()
    assert outcome.deaths > 20
    assert set(outcome.ended) == {job.name for job in jobs}
    assert set(outcome.errors) == {"run-4", "run-5"}, "those that asked for the mask"
    assert outcome.told >= 3000 * 4


def test_a_worker_twenty_times_slower_does_not_hold_up_a_short_question():
    pool = Pool(8, unequal=0.0, stragglers=0.125)
    long = Job("long", 8000, 0.05, order_masks=20)
    short = [Job(f"short-{i}", 60, 0.05, 10 + 2.3 * i, order_masks=16) for i in range(12)]
    outcome = Simulation([long, *short], pool).run()
    assert max(slowdowns(short, outcome, pool)) < 3.5


def served(broker, clock, rounds, workers=4):
    """Let workers serve for a while; masks measured by run."""
    counts = dict.fromkeys(broker.snapshot().queued, 0)
    for _ in range(rounds):
        leases = [broker.lease(f"w{i}") for i in range(workers)]
        clock.now += 1
        for lease in leases:
            counts[lease.run_id] += len(lease.rows)
            broker.finish(lease.number, measured(lease, 0.05 * len(lease.rows)))
    return counts


def test_runs_of_equal_priority_share_equally_and_each_step_of_priority_doubles_the_share():
    clock = Clock()
    broker = Broker(clock)
    for run, priority in (("low", 4), ("ann", 5), ("bob", 5), ("high", 6)):
        broker.open(run, priority=priority, masks=100_000)
        for number in range(200):
            broker.place(order_of(run, number, masks_of(20, seed=number), run))
    counts = served(broker, clock, 90)
    assert counts["ann"] == pytest.approx(counts["bob"], rel=0.1)
    assert counts["high"] == pytest.approx(2 * counts["ann"], rel=0.15)
    assert counts["low"] == pytest.approx(counts["ann"] / 2, rel=0.15)


def test_a_run_that_was_idle_has_no_credit():
    clock = Clock()
    broker = Broker(clock)
    for run in ("busy", "idle"):
        broker.open(run, masks=100_000)
    for number in range(400):
        broker.place(order_of("busy", number, masks_of(20, seed=number), "one"))
    served(broker, clock, 50)
    for number in range(200):
        broker.place(order_of("idle", number, masks_of(20, seed=number), "other"))
    counts = served(broker, clock, 20)
    assert counts["idle"] == pytest.approx(counts["busy"], rel=0.15)


def test_a_worker_prefers_a_model_that_it_has_loaded_unless_another_run_falls_behind():
    clock = Clock()
    broker = Broker(clock)
    for run in ("ann", "bob"):
        broker.open(run)
        for number in range(100):
            broker.place(order_of(run, number, masks_of(20, seed=number), run, model=f"model of {run}", seconds=0.025))
    runs = []
    for _ in range(40):
        lease = broker.lease("w", {f"model of {runs[-1]}"} if runs else ())
        runs.append(lease.run_id)
        broker.finish(lease.number, measured(lease, 0.5))
    changes = sum(before != after for before, after in itertools.pairwise(runs))
    assert changes <= 10
    assert abs(runs.count("ann") - runs.count("bob")) <= 6


def test_a_run_that_needs_no_model_does_not_wait_for_one_whose_model_is_loaded():
    clock = Clock()
    broker = Broker(clock)
    broker.open("long", masks=1_000_000)
    for number in range(50):
        broker.place(order_of("long", number, masks_of(20, seed=number), "long", model="large"))
    for _ in range(5):
        lease = broker.lease("w", {"large"})
        clock.now += 0.5
        broker.finish(lease.number, measured(lease, 0.5))
    broker.open("short", masks=20)
    broker.place(order_of("short", 0, masks_of(20), "short"))
    assert broker.lease("w", {"large"}).run_id == "short"


@pytest.mark.parametrize("options", [{"priority": 10}, {"priority": -1}, {"workers": 0}])
def test_priorities_and_limits_are_checked(options):
    with pytest.raises(ValueError, match="expected"):
        Broker(Clock()).open("ann", **options)


def test_the_simulation_prints_its_figures(capsys):
    assert main(["--workers", "8", "--seconds", "20", "--json"]) == 0
    import json

    figures = json.loads(capsys.readouterr().out)
    assert figures["lost"] == 0
    assert figures["duplicates_saved"] > 0
    assert np.isfinite(figures["short_slowdown_worst"])
