"""The command line as a person meets it: real processes, the embedded model, one line and exit code 2 for a mistake."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysp.store import Store

ROOT = Path(__file__).parent.parent
REVIEW = ["--prompt", "Her acting never fails to impress", "--template", r"Review: {prompt}\nSentiment:", "--target", " positive", "--foil", " negative"]
FEATURE = ["feature", *REVIEW, "--dtype", "float32", "--local"]


def raysp(*arguments, home):
    environment = {**os.environ, "RAYSP_HOME": str(home), "COLUMNS": "160"}
    return subprocess.run([sys.executable, "-m", "raysp", *arguments], capture_output=True, text=True, env=environment, check=False, cwd=home)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A home in which one question has been asked."""
    folder = tmp_path_factory.mktemp("asked")
    kept = Path(os.environ.get("RAYSP_HOME", "~/.raysp")).expanduser() / "models"
    kept.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(kept)
    done = raysp(*FEATURE, "--name", "first", "--report", "first.html", "--json", home=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_known_answer_of_the_demonstration_sentence(asked):
    """All 64 masks are affordable, so the Banzhaf interactions are exact: never × fails +3.79, acting × never × fails +2.21."""
    _, answer = asked
    values = {row["labels"]: row["value"] for row in answer["interactions"]}
    assert answer["summary"]["value_intact"] == pytest.approx(2.22, abs=0.01)
    assert answer["summary"]["value_empty"] == pytest.approx(0.16, abs=0.01)
    assert values["never × fails"] == pytest.approx(3.79, abs=0.01)
    assert values["acting × never × fails"] == pytest.approx(2.21, abs=0.01)


def test_json_is_all_there_is_on_stdout(asked):
    folder, _ = asked
    for command in (["runs"], ["show", "last"], ["report", "first", "-o", "again.html"], ["sql", "SELECT 1 AS one"], ["plan", *FEATURE]):
        done = raysp(*command, "--json", home=folder)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_a_person_reads_words(asked):
    folder, _ = asked
    shown = raysp("show", "first", home=folder).stdout
    for words in ("never × fails", "synergy", "removed", "evaluations"):
        assert words in shown
    assert "first" in raysp("runs", home=folder).stdout


def test_sql_comes_in_every_format(asked):
    folder, _ = asked
    query = "SELECT labels, value FROM top_interactions LIMIT 3"
    assert "labels" in raysp("sql", query, home=folder).stdout
    rows = list(csv.DictReader(io.StringIO(raysp("sql", query, "--format", "csv", home=folder).stdout)))
    assert len(rows) == 3
    assert json.loads(raysp("sql", query, "--format", "json", home=folder).stdout)[0]["labels"] == rows[0]["labels"]
    binary = subprocess.run(
        [sys.executable, "-m", "raysp", "sql", query, "--format", "parquet"], capture_output=True, check=True, env={**os.environ, "RAYSP_HOME": str(folder)}
    )
    assert pq.read_table(io.BytesIO(binary.stdout)).num_rows == 3


def test_a_plan_says_what_everything_would_cost_and_stores_nothing(asked):
    folder, _ = asked
    before = raysp("runs", "--json", home=folder).stdout
    plan = json.loads(raysp("plan", *FEATURE, "--json", home=folder).stdout)
    assert (plan["components"], plan["pairs"], plan["triples"], plan["subsets"]) == (6, 15, 20, 64)
    assert plan["this_run"]["seconds"] > 0
    assert raysp("runs", "--json", home=folder).stdout == before


def test_the_same_question_again_is_free(asked):
    folder, _ = asked
    again = json.loads(raysp(*FEATURE, "--json", home=folder).stdout)
    assert sum(row["evaluations"] for row in again["costs"]) == 0


def test_a_set_of_prompts_is_one_run_each_with_a_summary(asked, tmp_path):
    folder, _ = asked
    rows = [{"prompt": "The film was not bad"}, {"prompt": "A dull and lifeless film"}, {"prompt": "I loved it, truly"}]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(row) for row in rows))
    done = raysp("feature", *REVIEW[2:], "--local", "--prompts", str(prompts), "--explorer", "exhaustive", "--json", "--report", "set.html", home=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["set"]["runs"] == len(told["runs"]) == 3
    assert (folder / "set.html").exists()


def test_an_example_that_cannot_be_asked_is_named_and_those_before_it_are_kept(tmp_path, asked):
    folder, _ = asked
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\nTwo words\nOne\n")
    options = ["--local", "--explorer", "exhaustive", "--store", str(tmp_path / "set.duckdb")]
    done = raysp("feature", *REVIEW[2:], *options, "--prompts", str(prompts), home=folder)
    assert done.returncode == 2
    assert "example 2, " in done.stderr.splitlines()[-1]
    with Store.read(tmp_path / "set.duckdb") as store:
        assert store.runs().num_rows == 1


def test_a_question_repeated_on_another_prompt_is_compared(asked):
    folder, _ = asked
    done = raysp(*FEATURE, "--repeat-on", "prompt:His acting never fails to impress", "--json", home=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["same_components"] is False


MISTAKES = [
    (["feature", "--prompt", ""], ["prompt"]),
    (["feature", "--prompt", "word"], ["component"]),
    (["feature", "--prompt", "two words", "--model", "no/such-model"], ["model", "no/such-model"]),
    (["feature", "--prompt", "two words", "--unit", "syllable"], ["unit", "syllable", "word"]),
    (["feature", *REVIEW, "--index", "nonsense"], ["index", "nonsense", "fsii"]),
    (["feature", "--prompt", "two words", "--explorer", "magic"], ["explorer", "magic", "proxyspex"]),
    (["feature", "--prompt", "two words", "--target", ""], ["target"]),
    (["feature", "--prompt", "two words", "--target", " yes", "--foil", " yes"], ["foil", "target"]),
    (["feature", "--prompt", "word " * 9000, "--target", " yes"], ["prompt", "8192"]),
    (["feature", *REVIEW, "--budget", "3"], ["budget", "3", "least"]),
    (["feature", "--prompt", "word " * 20, "--explorer", "exhaustive", "--target", " yes"], ["20", "16"]),
    (["feature", *REVIEW, "--budget", "many"], ["budget", "many"]),
    (["feature", "--nonsense"], ["--nonsense"]),
    (["run", "missing.yaml"], ["missing.yaml"]),
    (["show", "nobody"], ["nobody"]),
    (["sql", "SELEC 1"], ["sql"]),
    (["sql", "SELECT nothing FROM runs"], ["nothing"]),
    (["sql", "DELETE FROM runs"], ["DELETE"]),
    (["sql", "SELECT 1", "--format", "xml"], ["format", "xml", "csv"]),
]


@pytest.mark.parametrize(("arguments", "parts"), MISTAKES, ids=[" ".join(arguments)[:50] for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(asked, arguments, parts):
    folder, _ = asked
    before = raysp("runs", "--json", home=folder).stdout
    local = ["--local"] if arguments[0] == "feature" else []
    done = raysp(*arguments, *local, home=folder)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]
    assert raysp("runs", "--json", home=folder).stdout == before


def test_malformed_yaml_names_its_line(tmp_path, asked):
    folder, _ = asked
    spec = tmp_path / "bad.yaml"
    spec.write_text("lens:\n  kind: feature\n  prompt: [oops\n")
    done = raysp("run", str(spec), home=folder)
    assert done.returncode == 2
    assert re.search(r"line \d", done.stderr)


def test_without_a_cluster_a_local_ray_answers_the_same_and_is_stopped(asked):
    folder, local = asked
    arguments = [argument for argument in FEATURE if argument != "--local"]
    done = raysp(*arguments, "--store", "ray.duckdb", "--json", home=folder)
    assert done.returncode == 0, done.stderr
    on_ray = json.loads(done.stdout)
    there, here = ({row["labels"]: row["value"] for row in answer["interactions"]} for answer in (on_ray, local))
    assert there == pytest.approx(here, abs=1e-5)  # an evaluator may use more threads than this test's process, and sums in another order
    with Store.open(folder / "ray.duckdb") as store:  # nobody holds it any more
        assert store.runs().num_rows == 1


def test_a_letter_is_screened_by_sentence(asked, tmp_path):
    folder, _ = asked
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Ann. I moved in May. My new home is in Lyon. The weather is mild. I hope you are well. Come soon.")
    options = ["--question", "In which city does the writer live?", "--unit", "sentence", "--explorer", "screen", "--top-k", "0.5", "--order", "3"]
    done = raysp("feature", "--prompt-file", str(letter), *options, "--target", " Lyon", "--budget", "40", "--local", "--json", home=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    strongest = max(told["singles"], key=lambda row: abs(row["value"]))
    assert strongest["label"] == "My new home is in Lyon."


def test_a_store_that_another_process_writes_is_one_line(tmp_path):
    with Store.open(tmp_path / "raysp.duckdb"):
        done = raysp(*FEATURE, home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(os.getpid()) in done.stderr


def test_a_corrupt_store_is_one_line(tmp_path):
    (tmp_path / "raysp.duckdb").write_bytes(b"this is no database" * 1000)
    done = raysp("runs", home=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "store" in done.stderr


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['raysp', '--help']\nfrom raysp.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'ray', 'duckdb', 'transformers', 'lightgbm', 'sklearn', 'datasets', 'plotly'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_and_explorer_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    import raysp.cli
    from raysp.explorers import EXPLORERS

    names = [command.callback.__name__.replace("_", "-") for command in raysp.cli.app.registered_commands]
    for name in [*names, "plan"]:
        assert f"raysp {name}" in readme, name
    for explorer in EXPLORERS:
        assert f"`{explorer}`" in readme


def test_the_readmes_sql_examples_answer(asked):
    folder, _ = asked
    examples = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    statements = re.sub(r"^--.*$", "", "\n".join(examples), flags=re.MULTILINE).split(";")
    queries = [query.strip() for query in statements if query.strip()]
    assert len(queries) >= 10
    for query in queries:
        done = raysp("sql", query, "--json", home=folder)
        assert done.returncode == 0, f"{query}\n{done.stderr}"
