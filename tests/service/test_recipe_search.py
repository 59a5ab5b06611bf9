"""Recipes searched beside other work on a real Ray: the evidence of this process, with evaluators on every core and a run under way, and nothing left behind."""

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from answered_training_sets import Trained
from ray._private.state import actors

import raysp
from raysp.actions.recipe_trials import LocalTrainings, observe
from raysp.actions.recipes import SEEDS, STEPS, SUBSETS, Candidate
from raysp.errors import UserError
from raysp.runs.state import RunRequest
from raysp.runs.stored_game import RECIPES
from raysp.runtime.client import RayEngine
from raysp.runtime.recipes import choose_recipe
from raysp.runtime.service_trainings import USUAL, ServiceTrainings, shared_priority
from raysp.specs.run import resolve


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def client():
    with RayEngine() as engine:
        yield engine.client


def spec_of(trained, name="there", **lens):
    return resolve(raysp.RunSpec(lens=trained.lens(**lens), explorer=raysp.Singles(), store=str(trained.folder / f"{name}.duckdb")))


def slow(masks):
    time.sleep(0.05)
    return masks.sum(axis=1).astype(float)


@pytest.fixture
def busy(client, trained):
    """Submit a function run that does not end by itself, and wait until it is under way on all cores of the cluster."""

    def start(run_id, function):
        lens = raysp.FunctionLens(function, n=20, batch_masks=1)  # the first two masks are a batch each
        store = str(trained.folder / "busy.duckdb")
        spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=100_000).options, evaluators=2, threads=1, store=store)
        client.submit([RunRequest(resolve(spec), run_id)])
        started.append(run_id)
        wait_until(lambda: [each.state for each in client.status().evaluators] == ["busy", "busy"] and not ray.available_resources().get("CPU"))

    started = []
    yield start
    client.cancel(started)


def done(client, run_id):
    """How many masks a run that has not ended was answered."""
    (state,) = client.states([run_id])
    assert not state.ended, state
    return 0 if state.progress is None else state.progress.done


def wait_until(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def paid(path):
    with raysp.Store.read(path) as store:
        return store.sql(f"SELECT sum(evaluations)::INT AS paid FROM costs WHERE run_id = '{RECIPES}'").to_pylist()[0]["paid"]


@pytest.mark.chaos
def test_a_search_finds_what_this_process_finds_while_evaluators_hold_all_cores_and_a_run_goes_on(client, trained, busy):
    busy("beside", slow)
    spec, at = spec_of(trained, epochs=2), []
    found, choice = choose_recipe(spec, trials=2, watch=lambda _: at.append((done(client, "beside"), ray.available_resources().get("CPU", 0.0))))
    assert choice is not None
    assert {free for _, free in at} == {0.0}
    assert at[-1][0] > at[0][0]
    assert len(found) == 2
    assert any(each.complete for each in found)
    trainings = LocalTrainings()
    for each in found:
        *_, here = itertools.islice(observe(spec.lens, each.candidate, trainings, keep=None, seed=spec.seed), STEPS if each.complete else 1)
        np.testing.assert_allclose(each.outputs, here.outputs, atol=1e-4)  # float32, in stacks of other sizes
        assert (each.loss, each.untrained_loss) == pytest.approx((here.loss, here.untrained_loss), abs=1e-4)
        assert (each.complete, each.trainings) == (here.complete, here.trainings)
        assert each.seconds > 0


def test_what_a_search_trained_is_stored_and_the_next_one_trains_only_for_the_price(client, trained):
    spec = spec_of(trained, "again", epochs=1)

    def search(name):
        *_, found = observe(spec.lens, Candidate.of(spec.lens), ServiceTrainings(Path(spec.store), name, USUAL), keep=None, seed=0)
        return found

    first = search("first")
    before = paid(spec.store)
    second = search("second")
    assert before == SEEDS * (SUBSETS + 2)  # and on everything and nothing
    assert paid(spec.store) == before + SUBSETS // STEPS
    np.testing.assert_array_equal(second.outputs, first.outputs)
    assert (second.loss, second.trainings) == (first.loss, SUBSETS // STEPS)


@pytest.mark.chaos
def test_a_search_that_is_interrupted_leaves_neither_orders_nor_actors(client, trained, busy):
    """Its trials wait for evaluators that do not become free."""
    spec, hold = spec_of(trained, "interrupted"), trained.folder / "hold"
    hold.touch()

    def held(masks):
        while hold.exists():
            time.sleep(0.05)
        return masks.sum(axis=1).astype(float)

    def interrupt():
        wait_until(lambda: trials() and spec.store in client.status().stores)  # which is open for the first session
        os.kill(os.getpid(), signal.SIGINT)

    try:
        busy("held", held)
        sender = threading.Thread(target=interrupt)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            choose_recipe(spec, trials=3)
        sender.join()
        wait_until(lambda: spec.store not in client.status().stores and not trials())
    finally:
        hold.unlink()


def trials():
    """The actors of trials that have not ended."""
    return [each for each in actors().values() if each["ActorClassName"] == "RecipeTrial" and each["State"] != "DEAD"]


def test_a_search_that_has_ended_is_not_let_in_again(client, trained):
    """A process that was ended may have asked for a session a moment before."""
    spec = spec_of(trained, "late")
    client.end_sessions("tune-recipe:late")
    with pytest.raises(raysp.InterruptedRunError, match="was stopped"):
        client.link.call("attach", "tune-recipe:late:0", "", spec.store, RECIPES, USUAL, spec.lens, None)


def test_a_question_that_cannot_be_asked_leaves_no_session(client, trained):
    """Evaluators of another shape would wait for it to end."""
    spec = spec_of(trained, "mistaken", target_modules="no_such")
    with pytest.raises(UserError, match="target_modules"):
        ServiceTrainings(Path(spec.store), "mistaken", USUAL).describe(spec.lens)
    wait_until(lambda: spec.store not in client.status().stores)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 31])
def test_trials_together_have_the_share_of_one_run(count):
    share = count * 2.0 ** (shared_priority(count) - USUAL)
    assert 0.5 < share <= 1
