"""The same questions on a real Ray of several nodes: the same answers, whatever dies on the way."""

import fcntl
import gc
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import ray
from answered_games import N, additive, flawed, planted
from ray._private import worker
from ray.job_submission import JobStatus, JobSubmissionClient
from services import actors
from tiny_models import save

import raysp
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.link import Link
from raysp.runtime.pool import EVALUATOR, named
from raysp.runtime.scheduler import NAME, scheduler
from raysp.specs.run import load_spec
from raysp.store import connection


def question(tmp_path, function, **options):
    lens = raysp.FunctionLens(function, n=N, batch_masks=64)
    explorer = raysp.ProxySPEX(budget=600, max_order=3)
    return raysp.RunSpec(lens=lens, explorer=explorer, seed=5, store=str(tmp_path / "ray.duckdb"), **options)


def same(one, other):
    assert one.evaluations.select(["mask", "value"]).sort_by("value").equals(other.evaluations.select(["mask", "value"]).sort_by("value"))
    assert one.interactions.equals(other.interactions)


def test_ray_equals_local(tmp_path):
    on_ray = raysp.run(question(tmp_path, planted))
    local = raysp.run(question(tmp_path, planted, local=True).model_copy(update={"store": str(tmp_path / "local.duckdb")}))
    assert on_ray.interactions.num_rows > 0
    same(on_ray, local)


def test_gradients_are_asked_of_an_evaluator(tmp_path):
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="Her acting never fails to impress", target=" not", foil="!", dtype="float32")
    spec = raysp.RunSpec(lens=lens, explorer=raysp.Screen(top_k=3, scores="gradient"), cross_check=True, store=str(tmp_path / "ray.duckdb"))
    on_ray = raysp.run(spec)
    local = raysp.run(spec.model_copy(update={"local": True, "store": str(tmp_path / "local.duckdb")}))
    assert on_ray.summary["diagnostics"]["kept"] == local.summary["diagnostics"]["kept"]
    # Where batches are cut otherwise a model's sums are made in another order.
    assert on_ray.interactions["exact"].to_numpy() == pytest.approx(local.interactions["exact"].to_numpy(), abs=1e-4)
    assert on_ray.cross_checks.select(["method", "label"]).equals(local.cross_checks.select(["method", "label"]))
    assert on_ray.cross_checks["value"].to_numpy() == pytest.approx(local.cross_checks["value"].to_numpy(), abs=1e-4)
    assert on_ray.summary["metrics"]["cross_checks"].keys() == local.summary["metrics"]["cross_checks"].keys() > {"gradient_x_input"}
    with pytest.raises(raysp.UserError, match=r"proxy: .gradient. needs the model.s gradients"):
        raysp.run(question(tmp_path, planted).model_copy(update={"explorer": raysp.ProxySPEX(proxy="gradient").options}))
    parts_of_a_model_have_the_same_values(tmp_path)  # here, where evaluators have torch


def test_the_environment_of_the_one_who_asks_sets_dtype_auto_on_a_cluster_that_does_not_have_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_AUTO_DTYPE", "bfloat16")
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="The film was long", target=" not", foil="!")
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), store=str(tmp_path / "ray.duckdb")))
    noise = result.summary["metrics"]["numeric_noise"]
    assert (result.summary["dtype"], noise["dtype"], noise["reference"]) == ("bfloat16", "bfloat16", True)


def parts_of_a_model_have_the_same_values(tmp_path):
    """A lens's files reach evaluators that have working directories of their own; gradients and warnings come back from them."""
    # Whatever the model prefers, it is right in one of the two, which is no better than chance: a warning.
    rows = [{"prompt": "Her acting never fails", "target": " not", "foil": "!"}, {"prompt": "The film was long, but good", "target": "!", "foil": " not"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lens = raysp.MechanisticLens(model=str(tmp_path / "llama"), prompts=str(tmp_path / "rows.jsonl"), components="heads:0-1/0-2", dtype="float32")
    spec = raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), cross_check=True, store=str(tmp_path / "ray.duckdb"))
    on_ray = raysp.run(spec)
    local = raysp.run(spec.model_copy(update={"local": True, "store": str(tmp_path / "local.duckdb")}))
    assert on_ray.summary["game"]["fingerprint"] == local.summary["game"]["fingerprint"]
    values = [{tuple(row["mask"]): row["value"] for row in run.evaluations.to_pylist()} for run in (on_ray, local)]
    assert len(values[0]) == 64
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert on_ray.cross_checks.select(["method", "label"]).equals(local.cross_checks.select(["method", "label"]))
    assert on_ray.cross_checks["value"].to_numpy() == pytest.approx(local.cross_checks["value"].to_numpy(), abs=1e-4)
    told = [[row["message"] for row in run.events.to_pylist() if row["kind"] == "warning"] for run in (on_ray, local)]
    assert told[0] == told[1] != []


def test_actors_read_well_on_the_dashboard(tmp_path):
    raysp.run(question(tmp_path, planted))
    deadline = time.monotonic() + 60  # a short run can end before the second evaluator has started
    while len(actors("raysp:evaluator:")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kinds = {re.fullmatch(r"raysp:(scheduler|runner:\d+|evaluator:\d+)", name)[1].partition(":")[0] for name in actors()}
    assert kinds == {"scheduler", "runner", "evaluator"}


def slow(masks):
    time.sleep(0.3)
    return planted(masks)


def test_a_killed_evaluator_costs_only_its_batches(tmp_path):
    """A real SIGKILL in the middle of a run; the answer is that of an undisturbed one."""
    marker = tmp_path / "killed"

    def fatal(masks):
        if len(masks) > 2 and not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return planted(masks)

    disturbed = raysp.run(question(tmp_path, fatal))
    assert marker.exists()
    calm = raysp.run(question(tmp_path, planted, local=True).model_copy(update={"store": str(tmp_path / "calm.duckdb")}))
    same(disturbed, calm)
    assert "retried" in disturbed.events["kind"].to_pylist()


def test_a_value_that_is_no_number_names_the_mask(tmp_path):
    with pytest.raises(raysp.EvaluationError, match=r"x3 × x5|x3"):
        raysp.run(question(tmp_path, flawed))


def test_an_error_of_the_function_arrives_as_it_was_raised(tmp_path):
    def wrong(masks):
        return np.zeros((len(masks), 2))

    with pytest.raises(ValueError, match=r"shape .* expected"):
        raysp.run(question(tmp_path, wrong))


@pytest.mark.parametrize("kind", [ZeroDivisionError, TypeError])
def test_an_error_that_a_game_raises_ends_the_run_whatever_it_is(tmp_path, kind):
    def failing(masks):
        raise kind("the text of it")

    with pytest.raises(kind, match="the text of it"):
        raysp.run(question(tmp_path, failing))


@pytest.mark.chaos
def test_an_evaluator_that_was_ended_on_purpose_is_replaced(tmp_path):
    raysp.run(question(tmp_path, planted))
    before = named(EVALUATOR)
    for name in before:
        ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
    assert raysp.run(question(tmp_path, planted)).summary["status"] == "done"
    assert before
    assert not set(before) & set(named(EVALUATOR))


def test_a_run_submitted_again_pays_for_nothing(tmp_path):
    spec = question(tmp_path, additive)
    first = raysp.run(spec)
    with raysp.Store.open(tmp_path / "ray.duckdb"):  # nobody holds it between runs, though the scheduler stays
        pass
    again = raysp.run(spec)
    assert sum(again.costs["evaluations"].to_pylist()) == 0
    assert sum(again.costs["reused"].to_pylist()) == sum(first.costs["evaluations"].to_pylist() + first.costs["reused"].to_pylist())


@pytest.mark.chaos
def test_a_dead_scheduler_is_replaced_and_the_run_goes_on(tmp_path):
    """The scheduler is killed while it drives a run; the client starts another, which pays only for what is missing."""
    spec = question(tmp_path, slow)
    state = {"killed": False}

    def watch(progress):
        if progress.phase == "explore" and progress.done > 200 and not state["killed"]:
            state["killed"] = True
            ray.kill(ray.get_actor(NAME, NAMESPACE), no_restart=True)

    result = raysp.run(spec, watch=watch)
    assert state["killed"]
    stored = result.evaluations.num_rows
    assert sum(result.costs["evaluations"].to_pylist()) <= stored + 2 * 2 * 64


@pytest.mark.chaos
def test_a_run_under_way_waits_for_its_store_when_another_process_holds_it_as_the_scheduler_comes_back(tmp_path):
    """Its runner goes on with it: a Python function is not part of the store."""
    held, killed = [], []

    def hold():
        """Lock the store's file as soon as the dead scheduler has let go of it."""
        held.append(os.open(tmp_path / "ray.duckdb", os.O_RDWR))
        while True:
            try:
                return fcntl.lockf(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.01)

    def release():
        """Let go of it when the next scheduler has found it locked."""
        try:
            Link(scheduler, killed[0]).call("version")
            time.sleep(3.0)
        finally:
            os.close(held[0])

    def watch(progress):
        if progress.phase == "explore" and progress.done > 200 and not held:
            killed.append(ray.get_actor(NAME, NAMESPACE))
            ray.kill(killed[0], no_restart=True)
            hold()
            threading.Thread(target=release).start()

    result = raysp.run(question(tmp_path, slow), watch=watch)
    assert held
    assert result.summary["status"] == "done"
    assert "retried" not in result.events["kind"].to_pylist()


def test_a_store_that_is_not_here_is_queried_where_it_is_while_a_run_is_stored_in_it(tmp_path, cli):
    """This process has another home than the scheduler, whose default store the run is in."""
    begun, released = tmp_path / "begun", tmp_path / "released"
    answers = {}
    queries = {
        "stored": ("SELECT count(*) OVER () AS stored FROM evaluations WHERE run_id = 'queried'", "--limit", "1", "--json"),
        "slow": ("SELECT sum(hash(a.range)) FROM range(3000000000) a", "--timeout", "0.5"),
        "elsewhere": ("FROM runs", "--store", str(tmp_path / "nothing.duckdb")),
    }

    def halting(masks):
        while len(masks) > 2 and begun.exists() and not released.exists():
            time.sleep(0.05)
        if len(masks) > 2:
            begun.touch()
        return planted(masks)

    def watch(progress):
        if progress.done > 4 and not answers:
            answers.update({name: cli("sql", *words) for name, words in queries.items()})
            released.touch()

    spec = question(tmp_path, halting).model_copy(update={"store": None})
    assert raysp.run(spec, run_id="queried", watch=watch).summary["status"] == "done"
    (row,), notes = json.loads(answers["stored"].out), answers["stored"].err
    assert row["stored"] > 2
    assert int(re.search(r"reading a snapshot made (\d+) s ago", notes)[1]) <= 2
    assert "these are the first 1 rows" in notes
    refusals = {"slow": "sql: took longer than 0.5 s", "elsewhere": "store: .*nothing.duckdb' does not exist"}
    for name, message in refusals.items():
        assert (answers[name].code, answers[name].out, answers[name].err.count("\n")) == (2, "", 1)
        assert re.match(f"raysp: {message}", answers[name].err)


def test_the_logs_have_the_events_of_runs_and_no_word_of_their_questions(tmp_path):
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="The zebrafinch was long", target=" not", foil="!", dtype="float32")
    spec = raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), store=str(tmp_path / "ray.duckdb"))
    raysp.run(spec, run_id="logged")

    def failing(masks):
        raise KeyError("zebrafinch")

    with pytest.raises(KeyError, match="zebrafinch"):
        raysp.run(question(tmp_path, failing), run_id="failing")
    with pytest.raises(raysp.UserError, match="zebrafinch"):
        raysp.run(spec.model_copy(update={"lens": lens.model_copy(update={"target": "zebrafinch", "foil": "zebrafinch"})}), run_id="mistaken")
    texts = [path.read_text(errors="replace") for path in Path(worker.global_worker.node.get_logs_dir_path()).rglob("*") if path.is_file()]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"time": ')]
    ours = [line for line in lines if line.get("run") in ("logged", "failing", "mistaken")]
    events = {(line["message"], line["run"]) for line in ours}
    assert {(event, "logged") for event in ("run submitted", "run started", "run ended", "execution began", "session opened", "session closed")} <= events
    ends = {line["run"]: (line["status"], line.get("reason")) for line in ours if line["message"] == "run ended"}
    assert ends["logged"] == ("done", None)
    assert ends["failing"] == ("failed", "KeyError")
    assert (ends["mistaken"][0], ends["mistaken"][1][:15]) == ("failed", "UserError about")
    assert {"store opened", "evaluator started", "evaluator ready", "game built", "lease failed"} <= {line["message"] for line in lines}
    for text in texts:
        assert "zebrafinch" not in text
        assert os.environ["RAY_AUTH_TOKEN"] not in text


def published(run_id):
    """The metrics about a run that all nodes show to Prometheus."""
    found = set()
    for node in ray.nodes():
        with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            found |= {line.partition("{")[0] for line in page.read().decode().splitlines() if f'run="{run_id}"' in line}
    return found


@pytest.mark.chaos
def test_a_run_has_gauges_while_it_is_under_way_and_none_afterwards(tmp_path):
    seen = set()

    def watch(progress):
        if progress.phase in ("explore", "validate"):
            seen.update(published("measured"))

    raysp.run(question(tmp_path, slow), run_id="measured", watch=watch)
    assert {"ray_raysp_run_done", "ray_raysp_evaluations_per_second", "ray_raysp_queue_depth"} <= seen
    deadline = time.monotonic() + 60  # Ray forgets what was not published for two of its intervals
    while published("measured"):
        assert time.monotonic() < deadline, published("measured")
        time.sleep(0.5)


def within(act):
    """The result of a function in the scheduler's process."""
    return ray.get(ray.get_actor(NAME, NAMESPACE).__ray_call__.options(concurrency_group="clients").remote(act), timeout=60)


@pytest.mark.chaos
def test_runs_that_ended_are_forgotten_with_all_that_they_held(tmp_path):
    """Their states are then read from the store."""

    def remember_two(_):
        from raysp.runtime import run_table

        run_table.REMEMBERED = 2

    def lenses(_):
        gc.collect()
        return sum(isinstance(each, raysp.FunctionLens) for each in gc.get_objects())

    def spec(function):
        return question(tmp_path, function).model_copy(update={"explorer": raysp.Singles(budget=30).options})

    for number in range(3):
        raysp.run(spec(lambda masks, weight=number: masks @ np.arange(N) * weight), run_id=f"run-{number}")
        within(remember_two)
    with pytest.raises(ZeroDivisionError) as caught:
        raysp.run(spec(lambda masks: 1 // len(masks[:0])), run_id="failed")
    assert caught.value.__notes__[0].startswith("In an evaluator:\n")
    actor = ray.get_actor(NAME, NAMESPACE)
    assert {state.run_id for state in ray.get(actor.states.remote())} == {"run-2", "failed"}
    assert within(lenses) <= 3
    assert ray.get(actor.states.remote(["run-0"]))[0].status == "done"
    assert ray.get(actor.result.remote("run-0")).run_id == "run-0"
    with pytest.raises(raysp.UserError, match=r"^run: 'nobody' is not known to this scheduler; read it with `raysp show nobody`"):
        Link(scheduler, actor).call("states", ["nobody"])


def test_a_submitted_job_answers_and_its_answer_stays_in_the_store(cluster, tmp_path):
    """`ray job submit --working-dir . -- python jobs/run.py SPEC`."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"lens: {{kind: feature, model: {save('llama', tmp_path / 'llama')}, prompt: The movie was not bad, target: ' yes', foil: ' no', dtype: float32}}\n"
        f"explorer: {{kind: exhaustive}}\nname: submitted\nstore: {tmp_path / 'job.duckdb'}\n"
    )
    local = raysp.run(load_spec(spec).model_copy(update={"local": True, "store": str(tmp_path / "local.duckdb")})).interactions.to_pylist()[0]
    home = {"RAYSP_HOME": os.environ["RAYSP_HOME"], "HF_HUB_OFFLINE": "1"}
    client = JobSubmissionClient(cluster.address)
    root = Path(__file__).parents[2]
    job = client.submit_job(
        entrypoint=f"{sys.executable} jobs/run.py {spec}",
        runtime_env={"working_dir": str(root), "excludes": [".venv", ".git", "out"], "env_vars": home},
    )
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(0.5)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    assert local["labels"] in client.get_job_logs(job)
    with raysp.Store.read(tmp_path / "job.duckdb") as store:
        strongest = store.run_table("interactions", store.find_run("submitted")).to_pylist()[0]
    assert strongest["labels"] == local["labels"]
    assert strongest["value"] == pytest.approx(local["value"], abs=1e-4)


def test_runs_are_removed_and_exported_while_the_service_stores_another_of_the_same_game(tmp_path, cli, monkeypatch):
    """What the one under way has found, or may yet find, stays as long as it goes on."""
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.1)
    halted, released, told = tmp_path / "halted", tmp_path / "released", {}

    def halting(masks):
        while len(masks) > 2 and halted.exists() and not released.exists():
            time.sleep(0.05)
        return planted(masks)

    def watch(progress):
        if progress.done > 4 and not told:
            for name, words in commands.items():
                told[name] = cli(*words, "--store", spec.store)
            released.touch()

    spec = question(tmp_path, halting).model_copy(update={"explorer": raysp.ProxySPEX(budget=200, max_order=2).options})
    raysp.run(spec, run_id="early")
    halted.touch()
    commands = {
        "export": ("export", "early", "-o", str(tmp_path / "out"), "--json"),
        "refused": ("gc", "late"),
        "tried": ("gc", "early", "--dry-run", "--json"),
        "removed": ("gc", "early", "--json"),
    }
    late = raysp.run(spec.model_copy(update={"seed": 7}), run_id="late", watch=watch)
    assert json.loads(told["export"].out)["rows"]["evaluations"] > 200
    assert (told["refused"].code, told["refused"].err) == (2, "raysp: run: 'late' has not ended; cancel it, or let it finish, before you remove it\n")
    tried, removed = json.loads(told["tried"].out), json.loads(told["removed"].out)
    assert removed == tried | {"dry_run": False}
    assert (removed["evaluations"], removed["games"], removed["bytes_after"]) == (0, 0, None)
    assert removed["kept"] > removed["unused"] > 0
    np.testing.assert_array_equal(late.evaluations["value"], planted(np.array(late.evaluations["mask"].to_pylist())))
    left = json.loads(cli("gc", "--json", "--store", spec.store).out)  # the service has closed the store, or compacts it
    assert 0 < left["evaluations"] <= removed["unused"]
    with raysp.Store.read(spec.store) as store:
        assert store.run_evaluations("late").num_rows == late.evaluations.num_rows
