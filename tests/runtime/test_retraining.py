"""Trainings as Tune trials on a real Ray: the values of this process, whatever dies on the way, and nothing paid for twice."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import answered_games
import numpy as np
import pytest
import ray
from answered_games import N, planted
from ray.cluster_utils import Cluster
from tiny_models import save

import raysp
from raysp.game import Measurement
from raysp.lenses import build_game
from raysp.runs.local import LocalBackend
from raysp.runs.result import read_result
from raysp.runs.run import Run
from raysp.runtime import retraining
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.desk import Desk, Lost, Task
from raysp.runtime.retraining import TuneBackend
from raysp.runtime.scheduler import NAME
from raysp.runtime.shape import Shape
from raysp.store import Store

ONE, TWO = Shape(1, 1, (("num_cpus", 1),)), Shape(2, 1, (("num_cpus", 1),))


def tasks(count):
    return [Task(number, "measure", ()) for number in range(count)]


def answered(desk, trial, number, seconds=0.0):
    desk.came(trial, number, Measurement(np.zeros(1), 0, seconds), None)


def test_blocks_begin_long_and_end_short():
    desk, sizes = Desk(workers=2), []
    desk.ask(tasks(100))
    while sum(sizes) < 100:
        sizes.append(len(desk.give("a trial").tasks))
        desk.ended("a trial")
    assert sizes[:3] == [25, 19, 14]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-3:] == [1, 1, 1]


def test_a_block_is_worth_a_trial_once_it_is_known_what_a_batch_takes():
    desk = Desk(workers=2)
    desk.ask(tasks(40))
    assert len(desk.give("first").tasks) == 10
    answered(desk, "first", 0, seconds=0.25)
    assert len(desk.give("second").tasks) == 20  # five seconds
    assert desk.give("third") is None  # two workers


def test_the_task_that_a_trial_died_of_is_told_the_rest_of_its_block_given_to_others_and_nothing_comes_twice():
    desk = Desk(workers=1)
    desk.ask(tasks(4))
    assert desk.give("lost") is not None
    answered(desk, "lost", 0)
    desk.ended("lost", "a dead actor")
    assert [task.number for task in desk.give("next").tasks] == [2, 3]
    answered(desk, "lost", 2)  # it had been on its way
    answered(desk, "next", 2)
    assert desk.answer()[0] == 0
    assert desk.answer() == (1, Lost("a dead actor"))
    assert [desk.answer()[0], desk.answer()] == [2, None]
    assert desk.retried == 1


def test_a_worker_without_work_is_kept_until_there_is_some():
    desk = Desk(workers=2)
    assert desk.give("nobody to keep") is None
    desk.ask(tasks(1))
    assert len(desk.give("first").tasks) == 1
    desk.begun("first", "an actor")
    desk.ended("first")
    assert desk.give("kept").tasks == ()
    assert desk.give("nobody else to keep") is None
    desk.begun("kept", "an actor")
    assert not desk.recalls("kept")
    desk.ask(tasks(1))
    assert desk.give("one too many") is None
    assert desk.recalls("kept")
    desk.ended("kept")
    assert len(desk.give("again").tasks) == 1


def test_a_worker_without_work_makes_room_for_one_that_still_starts():
    desk = Desk(workers=2)
    desk.ask(tasks(1))
    desk.give("first")
    desk.begun("first", "an actor")
    desk.ended("first")
    desk.give("kept")
    desk.begun("kept", "an actor")
    desk.ask(tasks(2))
    assert len(desk.give("starting").tasks) == 1
    assert desk.give("a third worker") is None
    assert desk.recalls("kept")
    desk.begun("starting", "another actor")
    assert desk.recalls("kept")  # for the other task
    desk.ended("kept")
    assert len(desk.give("again").tasks) == 1


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, joined by this process as a driver."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    ray.cloudpickle.register_pickle_by_value(answered_games)
    ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
    nodes.wait_for_nodes()
    yield
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def trained(cluster, tmp_path):
    """A game that notes every batch and who measured it, and waits `pause` seconds for each; at call number `fatal` its process is killed, at `stuck` it waits.

    Nobody is done before there are `together` of them.
    """

    def actors():
        return {int(path.name.split("-")[1]) for path in tmp_path.glob("*-*")}

    def game(pause=0.0, fatal=None, stuck=None, together=1):
        def measure(masks):
            (tmp_path / f"{time.time_ns()}-{os.getpid()}").write_bytes(np.packbits(masks).tobytes())
            calls = len(list(tmp_path.glob("*-*")))
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600 if calls == stuck else pause)
            while len(actors()) < together:
                time.sleep(0.05)
            return planted(masks)

        return raysp.FunctionLens(measure, n=N, name="trained", batch_masks=16)

    game.calls = lambda: len(list(tmp_path.glob("*-*")))
    game.actors = actors
    return game


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((4, N)) < 0.5 for _ in range(count)]


def measured(backend, asked):
    """Every batch comes once, with the values it has in this process."""
    found = {}
    for index, rows, measurement in backend.measure(asked):
        assert index not in found
        assert rows == slice(0, len(asked[index]))
        found[index] = measurement.values
    assert sorted(found) == list(range(len(asked)))
    for index, masks in enumerate(asked):
        np.testing.assert_array_equal(found[index], planted(masks))


def all_is_given_back():
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_actors_keep_their_game_from_round_to_round_and_leave_nothing_behind(trained, capfd):
    before = set(Path(tempfile.gettempdir()).glob("raysp-tune-*"))
    backend = TuneBackend(TWO, trained(together=2))
    assert backend.info.n == N
    assert backend.gradient_report(2).surrogate() is None
    for seed in range(3):
        measured(backend, batches(20, seed))
    backend.close()
    assert len(trained.actors()) == 2
    assert trained.calls() == 60
    assert backend.retried == 0
    assert set(Path(tempfile.gettempdir()).glob("raysp-tune-*")) == before
    assert "".join(capfd.readouterr()) == ""
    all_is_given_back()


def test_a_killed_actor_loses_nothing_but_the_batch_it_was_at(trained):
    """A real SIGKILL in the middle of a block, and one of an actor that waits for the next round."""
    backend = TuneBackend(TWO, trained(pause=0.05, fatal=5))
    measured(backend, batches(24))
    assert backend.retried == 1
    assert trained.calls() == 24 + 1
    for actor in trained.actors():
        try:
            os.kill(actor, signal.SIGKILL)
        except ProcessLookupError:
            continue
    measured(backend, batches(4, seed=1))
    assert trained.calls() == 24 + 1 + 4
    backend.close()
    all_is_given_back()


def test_an_error_of_the_game_comes_as_it_was_raised_and_stops_the_others(cluster):
    def diverging(masks):
        if masks.all():
            raise raysp.EvaluationError("the training without 3 of 12 components (a, b, c) diverged at step 3")
        time.sleep(600)

    backend = TuneBackend(TWO, raysp.FunctionLens(diverging, n=N))
    with pytest.raises(raysp.EvaluationError, match=r"^the training without 3 of 12 components \(a, b, c\) diverged at step 3$"):
        list(backend.measure([np.zeros((1, N), dtype=bool), np.ones((1, N), dtype=bool)]))
    all_is_given_back()


def test_a_campaign_is_cancelled_at_once_and_goes_on_from_the_store(trained, tmp_path):
    """Cancelled in the middle of a batch and resumed it equals one in this process; only the batch under way is paid for again."""

    def run(place, backend, lens):
        spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=200, max_order=2), seed=5)
        with Store.open(tmp_path / f"{place}.duckdb") as store:
            try:
                Run(spec, backend, store, "run").execute()
            finally:
                if isinstance(backend, TuneBackend):
                    backend.close()
            return read_result(store, "run")

    stuck, quick = trained(stuck=6), trained()
    with pytest.raises(raysp.InterruptedRunError):
        run("ray", TuneBackend(ONE, stuck, cancelled=lambda: trained.calls() == 6), stuck)
    resumed = run("ray", TuneBackend(ONE, quick), quick)
    paid = trained.calls()
    calm = run("local", LocalBackend(build_game(quick)), quick)
    assert trained.calls() - paid == paid - 1
    same(resumed, calm)
    all_is_given_back()


def values(result):
    return {tuple(row["mask"]): row["value"] for row in result.evaluations.to_pylist()}


def same(one, other):
    assert values(one) == values(other) != {}
    assert one.interactions.equals(other.interactions)


@pytest.fixture
def data(cluster, tmp_path):
    """A run of the data lens on a small model: seven examples, two queries, all subsets."""
    words = ["long", "good", "bad", "quiet", "city", "letter", "never"]
    rows = [{"prompt": f"The film {word} was", "completion": f" {words[i - 3]}"} for i, word in enumerate(words)]
    asked = [{"prompt": "The movie was", "completion": " good"}, {"prompt": "Nobody", "completion": " yes"}]
    for name, lines in (("train", rows), ("queries", asked)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = {"train": str(tmp_path / "train.jsonl"), "queries": str(tmp_path / "queries.jsonl")}
    lens = raysp.DataLens(model=save("llama", tmp_path / "llama"), **files, adapted_layers="last:1", dtype="float32", epochs=24)
    yield raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), cross_check=True, evaluators=1, threads=1, store=str(tmp_path / "ray.duckdb"))
    scheduler = ray.get_actor(NAME, NAMESPACE)
    ray.get(scheduler.close.remote())
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("raysp:"):
            ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)
    all_is_given_back()


def outputs(spec, result):
    """What each query was answered, by mask."""
    with raysp.Store.read(spec.store) as store:
        return dict(zip(map(tuple, result.evaluations["mask"].to_pylist()), store.run_outputs(result.run_id).tolist(), strict=True))


def test_trainings_on_ray_equal_those_of_this_process_whoever_dies(data):
    """To the last bit, though the scheduler is killed in the middle; what it had stored is not trained again."""
    state = {"killed": False}

    def watch(progress):
        if progress.phase == "explore" and 16 < progress.done < 120 and not state["killed"]:
            state["killed"] = True
            ray.kill(ray.get_actor(NAME, NAMESPACE), no_restart=True)

    result = raysp.run(data, watch=watch)
    assert state["killed"]
    here = data.model_copy(update={"local": True, "store": data.store.replace("ray.", "local.")})
    local = raysp.run(here)
    same(result, local)
    assert outputs(data, result) == outputs(here, local)
    assert len(values(result)) == 2**7
    assert sum(result.costs["evaluations"].to_pylist()) == 2**7 + 5  # those that numeric noise was measured on, once more
    assert result.cross_checks.equals(local.cross_checks)


def test_trainings_and_evaluators_take_turns(data):
    """Idle evaluators make room for trainings and come back after them; where one is in use the other is refused."""
    data = data.model_copy(update={"explorer": raysp.Singles(budget=20).options, "cross_check": False})
    function = data.model_copy(update={"lens": raysp.FunctionLens(planted, n=N)})
    refused = []

    def refuse(spec):
        def watch(progress):
            if not refused:
                with pytest.raises(raysp.UserError) as caught:
                    raysp.run(spec)
                refused.append(str(caught.value))

        return watch

    raysp.run(function)
    assert "raysp:evaluator:0" in {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    raysp.run(data, run_id="training", watch=refuse(function))
    assert refused.pop() == "lens: 'function' cannot run while run training trains on the cluster; wait for it to end, or cancel it"

    def slow(masks):
        time.sleep(0.5)
        return planted(masks)

    raysp.run(function.model_copy(update={"lens": raysp.FunctionLens(slow, n=N)}), run_id="measuring", watch=refuse(data))
    assert refused == ["lens: 'data' cannot run while run measuring uses the cluster's evaluators; wait for it to end, or cancel it"]


def test_what_ends_all_trials_is_reported_in_a_line(monkeypatch):
    def dying(*_):
        raise RuntimeError("Caught unexpected exception: 1 worker(s) were killed due to the node running low on memory.\nObject store memory usage: ...")

    desk = Desk(1)
    monkeypatch.setattr(retraining, "_tuner", dying)
    retraining._experiment(desk, Shape(1, 1, ()), raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3))
    message = r"^the trainings were ended \(RuntimeError: 1 worker\(s\) were killed due to the node running low on memory\.\); .* can be resumed$"
    with pytest.raises(raysp.EvaluationError, match=message):
        desk.answer()
