"""The mechanistic lens on the command line: asked, planned, pruned and compared on a tiny model; a mistake is one line and exit code 2."""

import json

import pytest
from command_line import process
from tiny_models import byte_tokenizer, save

from raysp.store import Store

TASK = ["--task", "greater-than", "--task-size", "4", "--dtype", "float32", "--device", "cpu", "--explorer", "exhaustive"]
METHODS = {"interactions", "refined", "singles", "singles_refined", "top_singles", "best_of_n", "intact"}
COMPARED = {"heads": "heads:0-1/0-2", "later": "heads:0/1-2,heads:1/0-3"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny model and a store."""
    folder = tmp_path_factory.mktemp("mechanistic")
    save("llama", folder / "llama")
    return folder


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("RAYSP_HOME", str(home))
    monkeypatch.chdir(home)


def ask(name):
    return ["mechanistic", "--model", "llama", *TASK, "--components", COMPARED[name]]


@pytest.fixture(scope="module")
def asked(home):
    """A question that has been asked, by a process of its own: what it printed."""
    done = process(*ask("heads"), "--local", "--name", "heads", "--cross-check", "--json", "--report", "heads.html", home=home)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_an_answer_is_about_parts_of_the_model(asked, home):
    assert [(row["label"], row["layer"], row["unit"]) for row in asked["components"]][2:4] == [("L0H2", 0, 2), ("L1H0", 1, 0)]
    assert asked["summary"]["status"] == "done"
    assert {row["method"] for row in asked["cross_checks"]} == {"attribution_patching", "integrated_gates", "relp"}
    shares = asked["summary"]["diagnostics"]["by_layer"]
    assert shares["linear"] + shares["within"] + shares["across"] == pytest.approx(1)
    assert "L1H0" in (home / "heads.html").read_text()


def test_a_task_that_the_model_cannot_do_is_reported_before_the_budget_is_spent(cli, asked):
    assert any("no better than chance" in event["message"] for event in asked["events"] if event["kind"] == "warning")
    code, out, err = cli(*ask("later"), "--local", "--name", "later")
    assert code == 0
    message = " ".join(err.split())
    assert message.count("warning: the intact model prefers target to foil in") == 1
    assert message.index("warning:") < message.index("explore")
    assert "warning" not in out
    for words in ("L1H3", "mechanistic", "evaluations"):
        assert words in out


def test_a_plan_says_what_it_would_cost_and_what_to_doubt(cli, asked):
    code, out, _ = cli("plan", *ask("heads"), "--local", "--json")
    plan = json.loads(out)
    assert code == 0
    assert (plan["components"], plan["pairs"], plan["subsets"]) == (6, 15, 64)
    assert plan["this_run"]["explore_evaluations"] >= 64
    assert "no better than chance" in plan["warnings"][0]
    _, out, _ = cli("plan", *ask("heads"), "--local")
    assert "6 components: 15 pairs" in out
    assert "warning: the intact model" in out


def test_runs_are_compared_by_the_heads_they_share(cli, asked):
    cli(*ask("later"), "--local", "--name", "later")
    code, out, _ = cli("compare", "heads", "later", "--json")
    told = json.loads(out)
    assert code == 0
    (pair,) = told["pairs"]
    assert [run["name"] for run in told["runs"]] == ["heads", "later"]
    assert (pair["same_components"], pair["shared_components"]) == (False, 5)
    code, out, _ = cli("compare", "heads", "later", "heads")
    assert code == 0
    assert "rank correlation of singles" in out
    assert out.count("llama · exhaustive · n = 6") == 3


def test_a_model_is_pruned_and_written(cli, asked, home):
    code, out, err = cli("prune", "heads", "--keep", "0.5", "--best-of", "8", "-o", "pruned", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert {row["method"] for row in told["rows"]} == METHODS
    assert [len(row["kept"]) for row in told["rows"] if row["keep"] == 0.5 and row["method"] != "intact"] == [3] * 6
    paid = {row["method"]: row["evaluations"] for row in told["rows"] if row["keep"] == 0.5}
    assert paid == dict.fromkeys(METHODS, 0) | dict.fromkeys(("refined", "singles_refined", "best_of_n"), 8)
    assert len(told["written"]["removed"]) == 3
    assert {"config.json", "tokenizer.json", "pruning.json", "model.safetensors"} <= {path.name for path in (home / "pruned").iterdir()}


def test_a_person_reads_what_pruning_costs(cli, asked):
    code, out, err = cli("prune", "heads", "--keep", "0.7", "--best-of", "8", "--per-layer")
    assert code == 0
    assert "Pruned on 4 held-out prompts" in out
    for words in ("70%", "interactions, refined by exact swaps", "singles (LASSO)", "best of 8 random subsets", "intact model", "exact evaluations"):
        assert words in out
    assert "comparing at 70% kept" in err
    shown = json.loads(cli("show", "heads", "--json")[1])
    assert {row["method"] for row in shown["prunings"]} == METHODS


def test_a_task_written_as_prompts_asks_the_same(cli, asked, home):
    code, out, _ = cli("task", "greater-than", "--size", "4", "--model", "llama")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [list(row) for row in rows] == [["prompt", "target", "foil", "counterfactual"]] * 4
    code, out, _ = cli("task", "greater-than", "--size", "4", "--model", "llama", "-o", "task.jsonl")
    assert (code, out) == (0, "4 prompts: task.jsonl\n")
    assert [json.loads(line) for line in (home / "task.jsonl").read_text().splitlines()] == rows
    with_file = ["mechanistic", "--model", "llama", "--prompts", "task.jsonl", *TASK[4:], "--components", COMPARED["heads"]]
    code, out, _ = cli(*with_file, "--local", "--json", "--store", str(home / "file.duckdb"))
    assert code == 0
    told = json.loads(out)
    assert told["summary"]["value_intact"] == pytest.approx(asked["summary"]["value_intact"], abs=1e-5)
    assert "runs" not in told  # one run about all prompts, not one run each


def test_the_prompts_of_a_task_need_no_weights(cli, home, tmp_path):
    byte_tokenizer().save_pretrained(tmp_path)
    code, out, _ = cli("task", "greater-than", "--size", "4", "--model", str(tmp_path))
    assert code == 0
    assert out == cli("task", "greater-than", "--size", "4", "--model", "llama")[1]


def test_a_prompt_set_is_one_value_here_and_many_runs_for_the_feature_lens(cli):
    message = cli("mechanistic", "--help-all")[1]
    assert "--prompts" in message
    assert "The value is the mean over prompts" in " ".join(message.replace("│", "").split())
    assert "--limit" not in message


def what_is_there(home):
    with Store.read(home / "raysp.duckdb") as store:
        return store.runs().to_pylist(), sorted(path.name for path in home.iterdir())


MISTAKES = [
    (["mechanistic"], ["prompt: nothing is given", "prompts (a data set) and task"]),
    (["mechanistic", "--prompt", "a b", "--task", "ioi"], ["prompt: only one of prompt and task can be explained"]),
    (["mechanistic", "--task", "sums"], ["lens.task: 'sums' is not known", "greater-than"]),
    (["mechanistic", "--task", "ioi"], ["task: 'ioi' needs single-token words", "use another model"]),
    (["mechanistic", "--task", "greater-than", "--target", "7"], ["target: '7' is given, and task has its own"]),
    (["mechanistic", "--prompts", "nowhere.jsonl"], ["prompts: 'nowhere.jsonl' does not exist"]),
    (["mechanistic", "--prompt", "Her acting", "--target", "!", "--components", "tails"], ["components: 'tails'", "names nothing"]),
    (["mechanistic", "--prompt", "Her acting", "--target", "!", "--layers", "7"], ["layers: '7'", "layers 0 to 1"]),
    (["mechanistic", "--prompt", "Her acting", "--target", "!", "--group", "0"], ["lens.group: '0' is not valid", "greater than or equal to 1"]),
    (["mechanistic", "--prompt", "Her acting", "--target", "!", "--ablation", "clamp"], ["clamp: is needed"]),
    (["mechanistic", "--prompt", "Her acting", "--target", "!", "--keep", "2"], ["explorer.keep: '2' is not valid"]),
    (["mechanistic", "--task", "greater-than", "--limit", "3"], ["--limit"]),
    (["plan", "mechanistic", "--prompt", "Her acting", "--target", "!", "--components", "heads:9"], ["components: 'heads:9'", "layers 0 to 1"]),
    (["prune", "nobody"], ["run: 'nobody' is unknown"]),
    (["prune", "heads", "--keep", "0"], ["keep: 0.0 is not between 0 and 1"]),
    (["prune", "heads", "--keep", "nan"], ["keep: nan is not between 0 and 1"]),
    (["prune", "heads", "--keep", "most"], ["--keep", "valid number"]),
    (["prune", "heads", "--keep", "0.99"], ["keep: 0.99 keeps 6 of 6 components"]),
    (["prune", "heads", "--best-of", "0"], ["best_of: 0 is not a number of subsets"]),
    (["prune", "heads", "--heldout", "nowhere.jsonl"], ["heldout: 'nowhere.jsonl' does not exist"]),
    (["prune", "heads", "-o", "llama"], ["output: 'llama' exists and is not empty"]),
    (["compare", "heads"], ["run: 'heads' cannot be compared alone; name at least two runs"]),
    (["compare", "heads", "nobody"], ["run: 'nobody' is unknown"]),
    (["task", "sums"], ["task: 'sums' is not known; choose one of ioi, facts, greater-than, induction"]),
    (["task", "induction"], ["task: 'induction' needs single-token words"]),
    (["task", "greater-than", "--size", "0"], ["size: 0 is not a number of prompts"]),
    (["task", "greater-than", "--seed", "one"], ["--seed", "valid integer"]),
    (["task", "greater-than", "--size", "2", "-o", "nowhere/rows.jsonl"], ["output: 'nowhere/rows.jsonl' cannot be written"]),
    (["task", "greater-than", "--model", "nowhere/at/all"], ["model: 'nowhere/at/all'"]),
    (["task", "greater-than", "--model", "."], ["has no usable tokenizer"]),
]


@pytest.mark.parametrize(("arguments", "parts"), MISTAKES, ids=[" ".join(arguments)[:60] for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(cli, asked, home, arguments, parts):
    before = what_is_there(home)
    model = ["--model", "llama"] if {"mechanistic", "task"} & set(arguments) and "--model" not in arguments else []
    local = ["--local", "--device", "cpu", "--dtype", "float32"] if "mechanistic" in arguments else []
    code, out, err = cli(*arguments, *model, *local)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line != "loading the model"]  # prune says where it is
    assert len(lines) == 1, err
    for part in parts:
        assert part in lines[0]
    assert what_is_there(home) == before
