"""The command line as a person meets it: real processes, the embedded model, one line and exit code 2 for a mistake."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from command_line import process
from homes import with_models
from tiny_models import save

from raysp.store import Store

REVIEW = ["--prompt", "Her acting never fails to impress", "--template", r"Review: {prompt}\nSentiment:", "--target", " positive", "--foil", " negative"]
FEATURE = ["feature", *REVIEW, "--dtype", "float32", "--local"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A home in which one question has been asked."""
    folder = with_models(tmp_path_factory.mktemp("asked"))
    done = process(*FEATURE, "--name", "first", "--report", "first.html", "--json", home=folder)
    assert done.code == 0, done.err
    return folder, json.loads(done.out)


@pytest.fixture
def here(asked, cli, monkeypatch):
    """The command in this process, which has loaded the libraries and the model already; in the home of `asked`."""
    folder, _ = asked

    def command(*arguments):
        monkeypatch.setenv("RAYSP_HOME", str(folder))
        monkeypatch.chdir(folder)
        return cli(*arguments)

    return command


def test_the_known_answer_of_the_demonstration_sentence(asked):
    """All 64 masks are affordable, so the Banzhaf interactions are exact: never × fails +3.79, acting × never × fails +2.21."""
    _, answer = asked
    values = {row["labels"]: row["value"] for row in answer["interactions"]}
    assert answer["summary"]["value_intact"] == pytest.approx(2.22, abs=0.01)
    assert answer["summary"]["value_empty"] == pytest.approx(0.16, abs=0.01)
    assert values["never × fails"] == pytest.approx(3.79, abs=0.01)
    assert values["acting × never × fails"] == pytest.approx(2.21, abs=0.01)


def test_json_is_all_there_is_on_stdout(here):
    for command in (["runs"], ["show", "last"], ["report", "first", "-o", "again.html"], ["sql", "SELECT 1 AS one"], ["plan", *FEATURE]):
        done = here(*command, "--json")
        assert done.code == 0, done.err
        json.loads(done.out)


def test_a_person_reads_words(here):
    shown = here("show", "first").out
    for words in ("never × fails", "synergy", "removed", "evaluations"):
        assert words in shown
    assert "first" in here("runs").out


def test_sql_comes_in_every_format(asked, here):
    folder, _ = asked
    query = "SELECT labels, value FROM top_interactions LIMIT 3"
    assert "labels" in here("sql", query).out
    rows = list(csv.DictReader(io.StringIO(here("sql", query, "--format", "csv").out)))
    assert len(rows) == 3
    assert json.loads(here("sql", query, "--format", "json").out)[0]["labels"] == rows[0]["labels"]
    binary = subprocess.run(
        [sys.executable, "-m", "raysp", "sql", query, "--format", "parquet"], capture_output=True, check=True, env={**os.environ, "RAYSP_HOME": str(folder)}
    )
    assert pq.read_table(io.BytesIO(binary.stdout)).num_rows == 3


def test_a_plan_says_what_everything_would_cost_and_stores_nothing(here):
    before = here("runs", "--json").out
    plan = json.loads(here("plan", *FEATURE, "--json").out)
    assert (plan["components"], plan["pairs"], plan["triples"], plan["subsets"]) == (6, 15, 20, 64)
    assert plan["this_run"]["seconds"] > 0
    assert here("runs", "--json").out == before


def test_the_same_question_again_is_free(here):
    again = json.loads(here(*FEATURE, "--json").out)
    assert sum(row["evaluations"] for row in again["costs"]) == 0


def test_a_set_of_prompts_is_one_run_each_with_a_summary(asked, tmp_path, here):
    folder, _ = asked
    rows = [{"prompt": "The film was not bad"}, {"prompt": "A dull and lifeless film"}, {"prompt": "I loved it, truly"}]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(row) for row in rows))
    done = here("feature", *REVIEW[2:], "--local", "--prompts", str(prompts), "--explorer", "exhaustive", "--json", "--report", "set.html")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["set"]["runs"] == len(told["runs"]) == 3
    assert (folder / "set.html").exists()


def test_an_example_that_cannot_be_asked_is_named_and_those_before_it_are_kept(tmp_path, here):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\nTwo words\nOne\n")
    options = ["--local", "--explorer", "exhaustive", "--store", str(tmp_path / "set.duckdb")]
    done = here("feature", *REVIEW[2:], *options, "--prompts", str(prompts))
    assert done.code == 2
    assert "example 2, " in done.err.splitlines()[-1]
    with Store.read(tmp_path / "set.duckdb") as store:
        assert store.runs().num_rows == 1


def test_a_question_repeated_on_another_prompt_is_compared(here):
    done = here(*FEATURE, "--repeat-on", "prompt:His acting never fails to impress", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["comparisons"][0]["same_components"] is False


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
def test_a_mistake_is_one_line_and_exit_code_2(arguments, parts, here):
    before = here("runs", "--json").out
    local = ["--local"] if arguments[0] == "feature" else []
    done = here(*arguments, *local)
    assert done.code == 2, done.err
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    for part in parts:
        assert part in lines[0]
    assert here("runs", "--json").out == before


@pytest.mark.parametrize("arguments", [["--prompt", "word"], ["--prompt", "two words", "--model", "no/such-model"]], ids=["components", "model"])
def test_libraries_add_nothing_to_the_line(asked, arguments):
    """In a process of its own, where they are loaded for the command and may write to the terminal."""
    folder, _ = asked
    done = process("feature", *arguments, "--local", home=folder)
    assert (done.code, done.out, len(done.err.strip().splitlines())) == (2, "", 1), done.err


def test_malformed_yaml_names_its_line(tmp_path, here):
    spec = tmp_path / "bad.yaml"
    spec.write_text("lens:\n  kind: feature\n  prompt: [oops\n")
    done = here("run", str(spec))
    assert done.code == 2
    assert re.search(r"line \d", done.err)


def test_without_a_cluster_a_local_ray_answers_the_same_and_is_stopped(tmp_path, cli):
    lens = ["--model", save("llama", tmp_path / "llama"), "--prompt", "Her acting never fails", "--target", " not", "--foil", "!", "--dtype", "float32"]
    arguments = ["feature", *lens, "--evaluators", "1", "--json", "--store", str(tmp_path / "ray.duckdb")]
    done = process(*arguments, home=tmp_path)
    assert done.code == 0, done.err
    assert "leaked" not in done.err  # DuckDB's bindings say so when Ray keeps classes alive past the end of the interpreter
    here = json.loads(cli(*arguments[:-1], str(tmp_path / "here.duckdb"), "--local").out)
    there, here = ({row["labels"]: row["value"] for row in answer["interactions"]} for answer in (json.loads(done.out), here))
    assert there
    assert there == pytest.approx(here, abs=1e-4)  # evaluators sum batches of other sizes
    with Store.open(tmp_path / "ray.duckdb") as store:  # nobody holds it any more
        assert store.runs().num_rows == 1


def test_a_letter_is_screened_by_sentence(tmp_path, here):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Ann. I moved in May. My new home is in Lyon. The weather is mild. I hope you are well. Come soon.")
    options = ["--question", "In which city does the writer live?", "--unit", "sentence", "--explorer", "screen", "--top-k", "0.5", "--order", "3"]
    done = here("feature", "--prompt-file", str(letter), *options, "--target", " Lyon", "--budget", "40", "--local", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    strongest = max(told["singles"], key=lambda row: abs(row["value"]))
    assert strongest["label"] == "My new home is in Lyon."


def test_a_store_that_another_process_writes_is_one_line(tmp_path):
    with Store.open(tmp_path / "raysp.duckdb"):
        done = process(*FEATURE, home=tmp_path)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert str(os.getpid()) in done.err


def test_a_corrupt_store_is_one_line(tmp_path):
    (tmp_path / "raysp.duckdb").write_bytes(b"this is no database" * 1000)
    done = process("runs", home=tmp_path)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "store" in done.err


@pytest.mark.parametrize("arguments", [["--help"], ["feature", "--help"], ["prune", "--help"], ["docs"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    code = f"import sys; sys.argv = {['raysp', *arguments]!r}\nfrom raysp.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'ray', 'duckdb', 'transformers', 'lightgbm', 'sklearn', 'datasets', 'numpy', 'pyarrow'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["feature", "mechanistic", "data"])
def test_help_shows_the_everyday_options_and_help_all_every_one(command, here):
    everyday, every = (set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", here(command, flag).out)) for flag in ("--help", "--help-all"))
    assert {"--model", "--budget", "--report", "--help-all"} <= everyday
    assert len(everyday - {"--help", "--help-all", "--subsets", "--fraction"}) <= 11
    assert everyday < every
    assert {"--seed", "--store", "--dtype", "--low-pairs", "--explorer"} <= every


def test_help_that_is_not_shown_still_works_as_an_option(here):
    assert json.loads(here("plan", *FEATURE, "--seed", "3", "--json").out)["components"] == 6
