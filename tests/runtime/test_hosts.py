"""A real Ray of several hosts: one of them is lost, an evaluator is killed by a mask, and the scheduler stays where its stores are."""

import os
import signal
import threading
import time

import answered_games
import numpy as np
import pytest
import ray
from answered_games import N, planted
from ray.cluster_utils import Cluster

import raysp
from raysp.masks import pack
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.dispatch import PoolBackend
from raysp.runtime.pieces import LOSSES_OF_A_MASK
from raysp.runtime.pool import Pool, dismiss
from raysp.runtime.scheduler import NAME, scheduler
from raysp.runtime.shape import Shape


@pytest.fixture(scope="module")
def hosts():
    """A head without cores, joined by this process as a driver, and two hosts of one core each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [cluster.add_node(num_cpus=1, resources={f"host{i}": 1}) for i in range(2)]
    ray.cloudpickle.register_pickle_by_value(answered_games)  # what a test's own function calls in turn
    ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster, workers
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(autouse=True)
def nobody_stays(hosts):
    yield
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("raysp:"):
            ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)
    deadline = time.monotonic() + 60
    while any(actor["name"].startswith("raysp:") for actor in ray.util.list_named_actors(all_namespaces=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def batches(count, size=4):
    """Distinct masks, no two batches the same."""
    rng = np.random.default_rng(0)
    numbers = rng.choice(2**N, count * size, replace=False)
    return list(((numbers[:, None] >> np.arange(N)) & 1).astype(bool).reshape(count, size, N))


def pool(count):
    return Pool(Shape(count, 1, (("num_cpus", 1),)))


def test_the_scheduler_and_its_stores_are_on_the_head_whoever_starts_it(hosts):
    cluster, workers = hosts

    @ray.remote(num_cpus=0)
    def start():
        actor = scheduler()
        ray.get(actor.version.remote())
        return ray.get_runtime_context().get_node_id()

    for host in range(2):
        started_on = ray.get(start.options(resources={f"host{host}": 0.1}).remote())
        assert started_on == workers[host].node_id
        actor = ray.get_actor(NAME, NAMESPACE)
        assert ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) == cluster.head_node.node_id
        ray.kill(actor, no_restart=True)
        time.sleep(1)


def test_only_the_batch_that_killed_its_evaluator_is_charged_and_the_mask_is_named(hosts, tmp_path):
    """All on one evaluator, so that other batches wait behind the deadly one each of the many times that it dies."""
    asked = batches(6)
    poison = pack(asked[2][1:2]).tobytes()

    def deadly(masks):
        if any(pack(mask[None]).tobytes() == poison for mask in masks):
            with (tmp_path / "deaths").open("a") as file:
                file.write(f"{len(masks)}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    backend = PoolBackend(pool(1), raysp.FunctionLens(deadly, n=N))
    measured = {}
    removed = np.flatnonzero(~asked[2][1])

    def measure():
        for batch, rows, measurement in backend.measure(asked):
            np.testing.assert_array_equal(measurement.values, planted(asked[batch][rows]))
            measured.setdefault(batch, []).append(rows)

    with pytest.raises(raysp.EvaluationError, match=rf"^evaluators died 4 times of the mask without {len(removed)} of {N} components \(x{removed[0]}\b"):
        measure()
    whole = [slice(0, 4)]
    assert {batch: rows for batch, rows in measured.items() if batch != 2} == dict.fromkeys((0, 1, 3, 4, 5), whole)
    assert sorted((rows.start, rows.stop) for rows in measured[2]) == [(0, 1), (2, 4)]
    # A death during the pool's own restart of the evaluator is charged to nobody, so each size may be tried more often than it is charged.
    deaths = [int(size) for size in (tmp_path / "deaths").read_text().split()]
    assert deaths == sorted(deaths, reverse=True)
    assert set(deaths) == {4, 2, 1}
    assert deaths.count(1) >= LOSSES_OF_A_MASK


def test_two_runs_share_an_evaluator_and_only_the_one_that_kills_it_fails(hosts, tmp_path):
    """The innocent run's batches wait behind the deadly one's, more often than a batch may be lost."""
    shared = pool(1)

    def deadly(masks):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    killer = PoolBackend(shared, raysp.FunctionLens(deadly, n=N))
    innocent = PoolBackend(shared, raysp.FunctionLens(planted, n=N))
    asked = batches(2, size=1)
    deaths = killer.measure(asked[:1])

    failed = []

    def kill():
        try:
            list(deaths)
        except raysp.EvaluationError as error:
            failed.append(error)

    thread = threading.Thread(target=kill)
    thread.start()
    rounds = 0
    while thread.is_alive():
        found = list(innocent.measure(asked))
        assert [(batch, rows) for batch, rows, _ in sorted(found, key=lambda each: each[0])] == [(0, slice(0, 1)), (1, slice(0, 1))]
        rounds += 1
    thread.join()
    assert len(failed) == 1
    assert rounds > 0


@pytest.mark.parametrize("kind", [ZeroDivisionError, TypeError, ValueError])
def test_an_error_that_a_game_raises_ends_the_run_whatever_it_is(hosts, kind):
    def failing(masks):
        raise kind("the text of it")

    backend = PoolBackend(pool(1), raysp.FunctionLens(failing, n=N))
    with pytest.raises(kind, match="the text of it"):
        list(backend.measure(batches(3)))
    with pytest.raises(AttributeError, match="'str' object has no attribute"):
        backend._pool.ask("describe", "a key", "not a lens")


def test_an_evaluator_that_was_ended_on_purpose_is_started_again(hosts):
    """Every row is answered once; a batch that was sent to both while they ended is answered in halves."""
    backend, asked = PoolBackend(pool(2), raysp.FunctionLens(planted, n=N)), batches(4)
    assert len(list(backend.measure(asked))) == 4
    dismiss()
    answered = np.zeros((4, 4), dtype=int)
    for batch, rows, measurement in backend.measure(asked):
        np.testing.assert_array_equal(measurement.values, planted(asked[batch][rows]))
        answered[batch, rows] += 1
    assert (answered == 1).all()


def test_a_run_goes_on_without_a_host_that_is_lost(hosts, tmp_path):
    """The host goes as a machine does that loses its power; its evaluator cannot be placed again."""
    cluster, workers = hosts
    asked = batches(60)

    def slow(masks):
        (tmp_path / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(0.2)
        return planted(masks)

    backend = PoolBackend(pool(2), raysp.FunctionLens(slow, n=N))
    found, lost = {}, workers[1]
    for batch, rows, measurement in backend.measure(asked):
        assert batch not in found
        assert rows == slice(0, 4)
        found[batch] = measurement.values
        if lost is not None and (tmp_path / lost.node_id).exists():
            cluster.remove_node(lost, allow_graceful=False)
            lost = None
    assert lost is None
    assert sorted(found) == list(range(60))
    for batch, masks in enumerate(asked):
        np.testing.assert_array_equal(found[batch], planted(masks))
    assert backend.retried > 0
