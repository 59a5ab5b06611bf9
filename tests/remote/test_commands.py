"""Commands with --server or RAYSP_SERVER: what they print is what they print on the service's machine."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys

import pytest
import yaml

import raysp
from raysp.commands.where import place
from raysp.specs.writing import as_yaml


@pytest.fixture
def both(started, elsewhere, cli, monkeypatch):
    """A command given elsewhere and given on the service's machine: how each ended."""
    home, *_ = started

    def run(*words):
        there = cli(*words)
        with monkeypatch.context() as patch:
            patch.setenv("RAYSP_HOME", str(home))
            patch.delenv("RAYSP_SERVER")
            here = cli(*words)
        return there, here

    return run


def parsed(text):
    return json.loads(text)


@pytest.mark.parametrize(
    "words",
    [("show", "RUN"), ("runs",), ("predict", "RUN", "--removed", "0,never", "--kept", "1"), ("compare", "RUN", "RUN"), ("sql", "SELECT run_id, n FROM runs ORDER BY 1")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_is_printed_is_the_same(answer, both, words):
    words = [word.replace("RUN", answer.run_id) for word in words]
    for form in ((), ("--json",)):
        there, here = both(*words, *form)
        assert (there.code, here.code) == (0, 0), there.err + here.err
        if form:
            assert parsed(there.out) == parsed(here.out)
        else:
            assert there.out == here.out


def test_a_report_is_drawn_from_what_is_read_there(answer, both, elsewhere):
    there, here = both("report", answer.run_id, "-o", str(elsewhere / "report.html"))
    assert (there.code, there.out) == (here.code, here.out)
    text = (elsewhere / "report.html").read_text()
    assert "never" in text
    assert answer.run_id in text


def test_a_question_is_answered_there(model, elsewhere, cli):
    words = ["--prompt", "Her acting never fails to impress", "--target", " not", "--foil", "!", "--model", model, "--dtype", "float32"]
    words += ["--budget", "40", "--heldout", "6", "--top", "2", "--random", "0", "--low-pairs", "0"]
    done = cli("feature", *words, "--report", "r.html", "--json")
    assert done.code == 0, done.err
    assert parsed(done.out)["summary"]["status"] == "done"
    assert (elsewhere / "r.html").exists()
    assert not (elsewhere / "raysp.duckdb").exists()
    plan = cli("plan", "feature", *words, "--json")
    assert parsed(plan.out)["components"] == 6
    assert "text" not in parsed(plan.out)


def test_submit_watch_and_steer(spec, elsewhere, cli):
    (elsewhere / "spec.yaml").write_text(as_yaml(spec))
    submitted = parsed(cli("submit", "spec.yaml", "--json").out)["runs"]
    assert [row["label"] for row in submitted] == ["the question"]
    run_id = submitted[0]["run_id"]
    assert parsed(cli("watch", run_id, "--json").out)["run_id"] == run_id
    again = cli("cancel", run_id)
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert "is done and cannot be cancelled" in again.err
    assert parsed(cli("resume", run_id, "--json").out)["run_id"] == run_id
    followed = cli("submit", "spec.yaml", "--follow")
    assert "submitted" in followed.out
    assert "verdict" in followed.out or "removed" in followed.out


def test_a_set_of_examples_has_one_report(spec, elsewhere, cli):
    (elsewhere / "rows.jsonl").write_text('{"prompt": "The film was long"}\n{"prompt": "The ending was good"}\n')
    fields = {**yaml.safe_load(as_yaml(spec)), "examples": "rows.jsonl", "name": "some"}
    (elsewhere / "spec.yaml").write_text(yaml.safe_dump(fields))
    done = cli("run", "spec.yaml", "--report", "set.html", "--json")
    assert done.code == 0, done.err
    assert parsed(done.out)["set"]["runs"] == 2
    assert all(row["run_id"] in (elsewhere / "set.html").read_text() for row in parsed(done.out)["runs"])


def test_exact_values_are_measured_there(answer, elsewhere, cli):
    done = cli("predict", answer.run_id, "--removed", "2,4", "--exact", "--json")
    assert parsed(done.out)["predictions"][0]["measured"] is not None
    refused = cli("predict", answer.run_id, "--removed", "2", "--exact", "--allow-pickle")
    assert (refused.code, refused.err.startswith("raysp: allow_pickle: ")) == (2, True)


def test_the_status_names_the_service(started, elsewhere, cli):
    assert f"at {started[1]}; runs:" in cli("status").out
    told = parsed(cli("status", "--json").out)
    assert told["running"]
    assert told["version"] == raysp.__version__


@pytest.mark.parametrize("words", [("prune", "last"), ("lds", "last"), ("select", "last"), ("tune-recipe", "x.yaml"), ("gc",), ("export", "--all")])
def test_what_works_on_its_own_machine_only_says_so(elsewhere, cli, words):
    for more in ((), ("--server", "http://127.0.0.1:1")):
        refused = cli(*words, *more)
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
        assert f"cannot do `raysp {words[0]}`" in refused.err


def test_up_and_down_are_refused_with_a_server_and_ignore_the_environment(elsewhere, cli):
    for name in ("up", "down"):
        assert cli(name, "--server", "http://127.0.0.1:1").code == 2
    assert cli("down").out == "No service was running.\n"
    assert cli("token").out.strip() == os.environ["RAYSP_TOKEN"]


def test_a_store_or_local_means_this_machine(elsewhere, cli):
    assert "does not exist" in cli("runs", "--store", "nowhere.duckdb").err
    for words in (("runs", "--store", "x.duckdb"), ("predict", "last", "--removed", "0", "--local")):
        refused = cli(*words, "--server", "http://127.0.0.1:1")
        assert (refused.code, "--server about another" in refused.err) == (2, True)
    assert type(place(None, local=True)).__name__ == "Here"


def test_one_way_to_a_cluster_at_a_time(elsewhere, cli, spec):
    (elsewhere / "spec.yaml").write_text(as_yaml(spec))
    assert "leave one of them out" in cli("submit", "spec.yaml", "--address", "http://h:1", "--server", "http://h:2").err


def test_an_interrupt_ends_the_following_and_not_the_run(remote, spec, elsewhere):
    lens = spec.lens.model_copy(update={"prompt": " ".join("acting" for _ in range(30))})
    slow = spec.model_copy(update={"lens": lens, "explorer": raysp.ProxySPEX(budget=200_000).options, "seed": secrets.randbelow(2**31)})
    (elsewhere / "slow.yaml").write_text(as_yaml(slow))
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from raysp.cli import main; main(sys.argv[1:])"
    command = subprocess.Popen(
        [sys.executable, "-c", code, "run", "slow.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    seen = command.stderr.readline()  # a line of progress: it follows
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=60)
    assert command.returncode == 130, seen + told
    run_id = re.search(r"the run goes on; `raysp watch (\S+)` follows again", told)[1]
    assert remote.states([run_id])[0].status in ("queued", "running")
    remote.cancel(run_id)
    assert [state.status for state in remote.follow([run_id])][-1] == "cancelled"
