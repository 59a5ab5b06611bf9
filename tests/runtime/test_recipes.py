"""Recipes searched beside other work on a real Ray: the evidence of this process, with evaluators on every core and a run under way, and nothing left behind."""

import itertools
import os
import signal
import time

import numpy as np
import pytest
import ray
from answered_training_sets import Trained
from ray._private import state as ray_state
from ray.cluster_utils import Cluster
from services import end_service, service_home

import raysp
from raysp.actions.recipe_trials import LocalTrainings, observe
from raysp.actions.recipes import SEEDS, STEPS, SUBSETS
from raysp.errors import UserError
from raysp.game import GameInfo
from raysp.runs.state import RunRequest
from raysp.runs.stored_game import RECIPES
from raysp.runtime.client import Client, RayEngine
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.recipes import choose_recipe
from raysp.runtime.service_trainings import USUAL, shared_priority
from raysp.specs.run import resolve


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The service of a node of two cores, both of which its evaluators hold."""
    with service_home(tmp_path_factory):
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
        with RayEngine() as cluster:
            yield cluster.client
        end_service()
        ray.shutdown()
        nodes.shutdown()


def spec_of(trained, name="there", **lens):
    return resolve(raysp.RunSpec(lens=trained.lens(**lens), explorer=raysp.Singles(), store=str(trained.folder / f"{name}.duckdb")))


def slow(masks):
    time.sleep(0.05)
    return masks.sum(axis=1).astype(float)


@pytest.fixture
def beside(client, trained):
    """A function run that does not end by itself, once it is under way on all cores of the cluster."""
    lens = raysp.FunctionLens(slow, n=20, batch_masks=4)
    spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=100_000).options, evaluators=2, threads=1, store=str(trained.folder / "beside.duckdb"))
    client.submit([RunRequest(resolve(spec), "beside")])
    wait_until(lambda: done(client) > 0 and ray.available_resources().get("CPU", 0.0) == 0.0)
    yield "beside"
    client.cancel(["beside"])


def done(client):
    """How many masks the run beside the search has been answered."""
    (state,) = client.states(["beside"])
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


def test_a_search_finds_what_trainings_of_this_process_find_while_evaluators_hold_all_cores_and_a_run_goes_on(client, trained, beside):
    spec, at = spec_of(trained, epochs=2), []

    def watch(progress):
        at.append((done(client), ray.available_resources().get("CPU", 0.0)))

    found, choice = choose_recipe(spec, trials=3, watch=watch)
    assert choice is not None
    assert {free for _, free in at} == {0.0}
    assert at[-1][0] > at[0][0]
    assert len(found) == 3
    assert any(each.complete for each in found)
    trainings = LocalTrainings()
    for each in found:
        here = observe(spec.lens, each.candidate, trainings, keep=None, seed=spec.seed)
        *_, last = itertools.islice(here, STEPS if each.complete else 1)
        np.testing.assert_allclose(each.outputs, last.outputs, atol=1e-4)  # float32, in stacks of other sizes
        assert (each.loss, each.untrained_loss) == pytest.approx((last.loss, last.untrained_loss), abs=1e-4)
        assert (each.complete, each.trainings) == (last.complete, last.trainings)
        assert each.seconds > 0


def test_what_a_search_trained_is_stored_and_a_second_search_trains_only_for_the_price(client, trained):
    spec = spec_of(trained, "again", epochs=1)
    (first,), _ = choose_recipe(spec, trials=1)
    before = paid(spec.store)
    (second,), _ = choose_recipe(spec, trials=1)
    assert before == SEEDS * (SUBSETS + 2)  # and on everything and nothing
    assert paid(spec.store) == before + SUBSETS // STEPS
    np.testing.assert_array_equal(second.outputs, first.outputs)
    assert (second.loss, second.trainings) == (first.loss, SUBSETS // STEPS)


def test_a_search_that_is_interrupted_leaves_neither_orders_nor_actors(client, trained):
    spec, told = spec_of(trained, "interrupted", epochs=6), []

    def watch(progress):
        told.append(progress)
        if progress.phase == "recipes":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        choose_recipe(spec, trials=8, watch=watch)
    assert told[-1].done < 8
    wait_until(lambda: spec.store not in client.status().stores)  # the scheduler closes the store of the last session
    wait_until(lambda: not [each for each in ray_state.actors().values() if each["ActorClassName"] == "RecipeTrial" and each["State"] != "DEAD"])


def test_a_search_that_has_ended_is_not_let_in_again(client, trained):
    """A process that was ended may have asked for a session a moment before."""
    spec = spec_of(trained, "late")
    client.end_sessions("tune-recipe:late")
    with pytest.raises(raysp.InterruptedRunError, match="was stopped"):
        client.link.call("attach", "tune-recipe:late:0", "", spec.store, RECIPES, USUAL, spec.lens, None)


def test_a_mistake_in_the_spec_is_told_as_it_is(client, trained):
    with pytest.raises(UserError, match="target_modules"):
        choose_recipe(spec_of(trained, "mistaken", target_modules="no_such"), trials=2)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 31])
def test_trials_together_have_the_share_of_one_run(count):
    share = count * 2.0 ** (shared_priority(count) - USUAL)
    assert 0.5 < share <= 1
