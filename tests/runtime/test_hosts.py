"""A real Ray of several hosts: one of them is lost, evaluators are killed by a mask, and the scheduler stays where its stores are."""

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
from services import end_service, service_home

import raysp
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.scheduler import NAME, scheduler

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """A head without cores, joined by this process as a driver, and two hosts of one core each."""
    with service_home(tmp_path_factory):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        workers = [cluster.add_node(num_cpus=1, resources={f"host{i}": 1}) for i in range(2)]
        ray.cloudpickle.register_pickle_by_value(answered_games)  # what a test's own function calls in turn
        ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
        cluster.wait_for_nodes()
        yield cluster, workers
        end_service()
        ray.shutdown()
        cluster.shutdown()


def question(store, function, **options):
    lens = raysp.FunctionLens(function, n=N, batch_masks=4)
    return raysp.RunSpec(lens=lens, explorer=raysp.Singles(budget=100), validation=raysp.Validation(heldout=0), store=str(store), **options)


def stored(store, run_id):
    """The values that a run has in its store, by mask."""
    with raysp.Store.read(store) as reading:
        rows = reading.run_evaluations(run_id)
    return {tuple(mask): value for mask, value in zip(rows["mask"].to_pylist(), rows["value"].to_pylist(), strict=True)}


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


def test_a_mask_that_kills_evaluators_is_found_and_named_and_ends_only_its_own_run(hosts, tmp_path):
    """Another run shares the only evaluator, and pays for none of its deaths."""
    removed = [0, 3, 7]
    poison = np.ones(N, dtype=bool)
    poison[removed] = False
    poison_key = poison.tobytes()

    def deadly(masks):
        if any(mask.tobytes() == poison_key for mask in np.asarray(masks)):
            with (tmp_path / "deaths").open("a") as file:
                file.write(f"{len(masks)}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    def innocent(masks):
        time.sleep(0.05)
        return planted(masks)

    killer = question(tmp_path / "s.duckdb", deadly, evaluators=1, threads=1).model_copy(update={"explorer": raysp.Exhaustive().options})
    killer = killer.model_copy(update={"lens": killer.lens.model_copy(update={"batch_masks": 512})})
    results = []
    beside = threading.Thread(target=lambda: results.append(raysp.run(question(tmp_path / "s.duckdb", innocent, evaluators=1, threads=1))))
    beside.start()
    named_mask = rf"^evaluators died \d+ times of the mask without {len(removed)} of {N} components \(x0 × x3 × x7\)"
    with pytest.raises(raysp.EvaluationError, match=named_mask):
        raysp.run(killer, run_id="killer")
    beside.join()
    assert results[0].summary["status"] == "done"
    deaths = [int(line) for line in (tmp_path / "deaths").read_text().split()]
    assert deaths == sorted(deaths, reverse=True)
    assert deaths[-3:] == [1, 1, 1]
    kept = stored(tmp_path / "s.duckdb", "killer")
    assert tuple(poison.tolist()) not in kept
    assert len(kept) == 2**N - 1
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        assert store.run_row("killer")["status"] == "failed"


def test_a_run_goes_on_without_a_host_that_is_lost(hosts, tmp_path):
    """The host goes as a machine does that loses its power; its evaluator cannot be placed again."""
    cluster, workers = hosts

    def slow(masks):
        (tmp_path / ray.get_runtime_context().get_node_id()).touch()
        time.sleep(0.1)
        return planted(masks)

    lost = [workers[1]]

    def watch(progress):
        if lost and (tmp_path / lost[0].node_id).exists() and progress.done > 20:
            cluster.remove_node(lost.pop(), allow_graceful=False)

    asked = question(tmp_path / "s.duckdb", slow).model_copy(update={"explorer": raysp.Singles(budget=300).options})
    result = raysp.run(asked, watch=watch)
    assert not lost
    values = stored(tmp_path / "s.duckdb", result.run_id)
    assert len(values) >= 300
    np.testing.assert_array_equal(list(values.values()), planted(np.array(list(values))))
    assert sum(result.costs["evaluations"].to_pylist()) <= result.evaluations.num_rows
