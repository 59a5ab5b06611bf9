"""Processes and nodes lost at the rates that a service must bear: every run ends with the answer of an undisturbed one, and pays twice at most for what was in flight."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from answered_games import planted
from services import pid_of
from tiny_models import save

import raysp
from raysp.runs.result import read_result
from raysp.runtime.client import Client
from raysp.runtime.scheduler import NAME

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

N, BATCH, WORKERS = 20, 16, 4
#: Nodes that are lost, seconds between two of them, and commands that run at the same time meanwhile.
LOST, LOST_EVERY, AT_ONCE = 20, 4.0, 3
#: What an evaluator may have been given and not answered: two leases, together of at most a second of work and so of one batch.
EACH_IN_FLIGHT = 2 * BATCH
DRIVER = """
import sys
sys.path[:0] = sys.argv[2:]
from test_faults import question, noting
import answered_games, test_faults
from pathlib import Path
from ray import cloudpickle
cloudpickle.register_pickle_by_value(answered_games)
cloudpickle.register_pickle_by_value(test_faults)
import raysp

def watch(progress):
    if progress.phase == "explore" and progress.done > 50:
        print("at work", flush=True)

raysp.run(question(Path(sys.argv[1]) / "s.duckdb", noting(Path(sys.argv[1]), 1.0)), run_id="orphan", watch=watch)
"""
INJECTED = {"num_failures": -1, "req_failure_prob": 5, "resp_failure_prob": 5, "in_flight_failure_prob": 0}
INJECTING = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from ray import cloudpickle
import answered_games, raysp, test_faults
from services import Nodes
cloudpickle.register_pickle_by_value(answered_games)
cloudpickle.register_pickle_by_value(test_faults)
nodes = Nodes()
nodes.resize(test_faults.WORKERS)
folder = Path(sys.argv[1])
raysp.run(test_faults.question(folder / "s.duckdb", test_faults.noting(folder, 0.05)), run_id="disturbed")
nodes.end()
"""


def question(store, function, budget=2000, **options):
    lens = raysp.FunctionLens(function, n=N, batch_masks=BATCH)
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=budget, max_order=3), seed=5, store=str(store), **options)


def noting(folder, seconds, slow=()):
    """A game that waits for each batch, and notes which processes measure. Those noted in `slow` wait 20 times as long."""

    def waiting(masks):
        file = folder / f"evaluator-{os.getpid()}"
        file.touch()
        time.sleep(seconds * (20 if (folder / "slow").exists() and (folder / "slow").read_text() == file.name else 1))
        return planted(masks)

    return waiting


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The answer of an undisturbed run."""
    return raysp.run(question(tmp_path_factory.mktemp("calm") / "calm.duckdb", planted, local=True))


def answered(result, calm, *, twice):
    """The same answer, with at most so many masks paid for twice."""
    assert result.summary["status"] == "done"
    assert _measured(result) == _measured(calm)
    for table in ("interactions", "singles", "validation", "heldout"):
        assert getattr(result, table).equals(getattr(calm, table)), table
    paid, least = (sum(each.costs["evaluations"].to_pylist()) for each in (result, calm))
    assert least <= paid <= least + twice


def _measured(result):
    columns = [result.evaluations[name].to_pylist() for name in ("mask", "value")]
    return {tuple(mask): value for mask, value in zip(*columns, strict=True)}


def kill(file):
    """Kill the process that a file of `noting` names; whether it lived."""
    file.unlink(missing_ok=True)
    try:
        os.kill(int(file.name.split("-")[1]), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def disturbing(act, every):
    """Do something again and again while the block is executed."""
    over = threading.Event()

    def disturb():
        while not over.wait(every):
            act()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_one_of_four_evaluators_is_killed_every_two_seconds_for_a_minute(nodes, calm, tmp_path):
    nodes.resize(WORKERS)
    killed, began = [], time.monotonic()

    def kill_one():
        if time.monotonic() - began < 60:
            killed.extend(file for file in sorted(tmp_path.glob("evaluator-*"))[:1] if kill(file))

    with disturbing(kill_one, 2.0):
        result = raysp.run(question(tmp_path / "s.duckdb", noting(tmp_path, 0.8)))
    assert len(killed) >= 15
    answered(result, calm, twice=len(killed) * EACH_IN_FLIGHT)


def test_all_four_evaluators_are_killed_together_five_times(nodes, calm, tmp_path):
    nodes.resize(WORKERS)
    killed, times = [], []

    def kill_all():
        found = list(tmp_path.glob("evaluator-*"))
        if len(found) == WORKERS and len(times) < 5:
            times.append(found)
            killed.extend(file for file in found if kill(file))

    with disturbing(kill_all, 1.0):
        result = raysp.run(question(tmp_path / "s.duckdb", noting(tmp_path, 0.4)))
    assert len(times) == 5
    answered(result, calm, twice=len(killed) * EACH_IN_FLIGHT)


def test_twenty_nodes_are_lost_and_replaced_while_commands_run(nodes, tmp_path):
    model = save("llama", tmp_path / "llama")
    nodes.resize(WORKERS)
    lens = {"kind": "feature", "prompt": "Her acting never fails to impress and the film was not long at all", "model": str(model), "target": " good"}
    spec = {
        "lens": lens | {"dtype": "float32"},
        "explorer": {"kind": "proxyspex", "budget": 1500, "max_order": 2, "proxy": "linear"},
        "threads": 1,
    }

    def command(seed, *options):
        place = tmp_path / f"{seed}{''.join(options)}"
        path = place.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(spec | {"seed": seed, "store": str(place.with_suffix(".duckdb"))}))
        environment = os.environ | {"RAY_ADDRESS": nodes.address}
        words = [sys.executable, "-m", "raysp", "run", str(path), "--json", *options]
        with place.with_suffix(".out").open("w") as out, place.with_suffix(".err").open("w") as err:
            return subprocess.Popen(words, stdout=out, stderr=err, env=environment)

    def printed(seed, *options):
        place = tmp_path / f"{seed}{''.join(options)}"
        return tuple(place.with_suffix(end).read_text() for end in (".out", ".err"))

    running, told, lost, due = {}, {}, 0, time.monotonic()
    while running or lost < LOST or len(told) < LOST:
        while len(running) < AT_ONCE and (lost < LOST or len(told) + len(running) < LOST):
            seed = len(told) + len(running)
            running[seed] = command(seed)
        time.sleep(0.5)
        for seed, process in list(running.items()):
            if process.poll() is not None:
                told[seed] = (process.returncode, *printed(seed))
                del running[seed]
        if lost < LOST and time.monotonic() > due:
            due = time.monotonic() + LOST_EVERY
            nodes.lose(nodes.workers[0])
            nodes.resize(WORKERS)
            lost += 1
    assert {code for code, *_ in told.values()} == {0}, [each for each in told.values() if each[0]]
    for seed in (0, 7, 19):
        assert command(seed, "--local").wait() == 0
        _alike(json.loads(told[seed][1]), json.loads(printed(seed, "--local")[0]))
    for _, out, _ in told.values():
        json.loads(out)


def _alike(found, wanted):
    """The same interactions, numbers as far as float32 reaches."""
    for table in ("interactions", "singles"):
        assert [row["components"] if "components" in row else row["component"] for row in found[table]] == [
            row["components"] if "components" in row else row["component"] for row in wanted[table]
        ]
        assert np.allclose([row["value"] for row in found[table]], [row["value"] for row in wanted[table]], rtol=1e-3, atol=1e-3)


def test_the_scheduler_is_killed_ten_times_after_the_driver(nodes, calm, tmp_path):
    nodes.resize(WORKERS)
    here = Path(__file__).parent
    script = [sys.executable, "-c", DRIVER, str(tmp_path), str(here), str(here.parent)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=os.environ | {"RAY_ADDRESS": nodes.address}) as driver:
        assert next((line for line in driver.stdout if line == "at work\n"), None)
        driver.kill()
    client, kills, done = Client(nodes.address), 0, 0
    for state in client.follow(["orphan"]):
        if kills < 10 and state.progress is not None and state.progress.done > done + BATCH:
            done, kills = state.progress.done, kills + 1
            os.kill(pid_of(NAME, "clients"), signal.SIGKILL)
    assert kills == 10
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        answered(read_result(store, "orphan"), calm, twice=kills * WORKERS * EACH_IN_FLIGHT)


def test_every_live_node_has_a_working_evaluator_within_a_minute_of_each_change(nodes, calm, tmp_path):
    nodes.resize(1)
    client = Client(nodes.address)
    asked = threading.Thread(target=lambda: results.append(raysp.run(question(tmp_path / "s.duckdb", noting(tmp_path, 2.0)))))
    results = []
    asked.start()

    def settled():
        deadline = time.monotonic() + 60
        while True:
            alive = {node.node_id for node in nodes.workers}
            working = {each.node for each in client.status().evaluators if each.state == "busy"}
            if working == alive:
                return
            assert time.monotonic() < deadline, (alive, client.status().evaluators)
            time.sleep(0.2)

    settled()
    for count in (4, 2, 4):
        nodes.resize(count)
        settled()
        if count == 2:
            os.kill(pid_of(NAME, "clients"), signal.SIGKILL)
            settled()
    client.close()
    asked.join()
    answered(results[0], calm, twice=6 * EACH_IN_FLIGHT)


def test_an_evaluator_that_is_twenty_times_slower_delays_nobody_and_costs_nothing(nodes, calm, tmp_path):
    nodes.resize(WORKERS)

    def slow_down():
        if not (tmp_path / "slow").exists() and (found := sorted(tmp_path.glob("evaluator-*"))):
            (tmp_path / "slow").write_text(found[0].name)

    with disturbing(slow_down, 0.5):
        result = raysp.run(question(tmp_path / "s.duckdb", noting(tmp_path, 0.2)))
    assert (tmp_path / "slow").exists()
    answered(result, calm, twice=0)


def test_calls_that_fail_and_answers_that_are_lost(calm, tmp_path):
    """Of the calls between all processes of a service, one in twenty is never sent, and the answer of another one is lost."""
    here = Path(__file__).parent
    environment = os.environ | {"RAY_testing_rpc_failure": json.dumps({"CoreWorkerService.grpc_client.PushTask": INJECTED}), "RAYSP_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", INJECTING, str(tmp_path), str(here), str(here.parent)], check=True, env=environment)
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        result = read_result(store, "disturbed")
    assert "retried" in result.events["kind"].to_pylist()
    answered(result, calm, twice=result.evaluations.num_rows)
