"""A spec holds a whole question, reads the same from YAML and from flags, and rejects bad input with one line."""

import json
from pathlib import Path

import pytest
import typer
from tiny_models import save

import raysp.cli
from raysp.commands.options import spec_from
from raysp.datasets.grouping import group
from raysp.datasets.training_sets import read_training_set
from raysp.errors import InterruptedRunError, UserError
from raysp.game import Component, GameInfo
from raysp.runs.parts import parts
from raysp.runs.run import start_explorer
from raysp.runtime.engine import run, run_all
from raysp.specs.lenses import DataLens, FeatureLens, FunctionLens
from raysp.specs.run import LENSES, RunSpec, load_spec, resolve, run_spec
from raysp.store import Store
from raysp.validation import Validation

YAML = """\
lens:
  kind: feature
  prompt: the film is not bad
  target: " positive"
  foil: " negative"
  unit: word
explorer:
  kind: screen
  top_k: 0.5
seed: 3
"""


def written(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


def message(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_yaml_and_flags_make_the_same_spec(tmp_path):
    flags = {"prompt": "the film is not bad", "target": " positive", "foil": " negative", "unit": "word", "explorer": "screen", "top_k": "0.5", "seed": "3"}
    assert spec_from("feature", flags) == load_spec(written(tmp_path, YAML))


def test_a_spec_survives_the_store(tmp_path):
    """A run keeps its spec as JSON, and resumes from it."""
    spec = load_spec(written(tmp_path, YAML))
    assert run_spec(json.loads(json.dumps(spec.model_dump(mode="json", exclude_none=True)))) == spec


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("unit: word", "unit: wrod", ["line 6", "lens.unit: 'wrod' is not known", "'word'", "'sentence'"]),
        ("unit: word", "untis: word", ["line 6", "lens.untis", "is not a field here", "known fields", "unit"]),
        ("kind: screen", "kind: magic", ["line 8", "explorer", "'magic'", "'proxyspex'"]),
        ("kind: screen", "knid: screen", ["explorer", "has no kind", "kind: screen"]),
        ("seed: 3", "seed: three", ["line 10", "seed: 'three'", "valid integer"]),
        ("seed: 3", "seed: 3\nseed: 4", ["line 11: seed: is given twice, first in line 10; remove one of them"]),
        ("unit: word", "unit: word\n  question: 2021-01-10", ["lens.question", "is not text (date); write it in quotation marks"]),
        ("seed: 3", "sead: 3", ["line 10", "sead", "is not a field here", "seed"]),
        ("seed: 3", "seed: [3", ["line 11", "is not valid YAML"]),
        ("  top_k: 0.5", "  top_k: 0.5\n  max_order: 3", ["line 10", "explorer.max_order", "is not a field here", "top_k"]),
    ],
)
def test_a_wrong_spec_names_line_field_value_and_mend(tmp_path, before, after, parts):
    error = message(lambda: load_spec(written(tmp_path, YAML.replace(before, after))))
    for part in parts:
        assert part in error


@pytest.mark.parametrize("text", ["", "- a\n- list\n", "just text\n"])
def test_a_spec_that_holds_no_fields_says_so(tmp_path, text):
    assert "has no fields" in message(lambda: load_spec(written(tmp_path, text)))


def test_a_missing_spec_file_says_so(tmp_path):
    assert "cannot be read" in message(lambda: load_spec(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"prompt": "a b", "explorer": "magic"}, ["explorer: 'magic' is not known", "proxyspex"]),
        ({"prompt": "a b", "explorer": "proxyspex", "top_k": "0.2"}, ["--top-k: '0.2' is not an option of proxyspex", "--explorer screen"]),
        ({"prompt": "a b", "unit": "syllable"}, ["lens.unit: 'syllable' is not known", "'token'"]),
        ({"prompt": "a b", "budget": "many"}, ["explorer.budget: 'many'", "valid integer"]),
        ({"prompt": "a b", "keep": "2"}, ["explorer.keep: '2' is not valid", "less than 1"]),
        ({"prompt": "a b", "keep": "some"}, ["explorer.keep: 'some' is not valid"]),
        ({"prompt_file": "nowhere.txt"}, ["prompt_file: 'nowhere.txt' cannot be read"]),
    ],
)
def test_wrong_flags_name_field_value_and_mend(flags, parts):
    error = message(lambda: spec_from("feature", flags))
    for part in parts:
        assert part in error


def test_scores_from_gradients_are_no_file_and_a_cross_check_is_a_flag():
    spec = spec_from("feature", {"prompt": "a b", "explorer": "screen", "scores": "gradient", "cross_check": True})
    assert resolve(spec).explorer.scores == "gradient"
    assert spec.cross_check
    assert not spec_from("feature", {"prompt": "a b"}).cross_check


def test_a_backslash_n_typed_in_a_template_is_a_line_break():
    assert spec_from("feature", {"prompt": r"a\nb", "template": r"{prompt}\nA:"}).lens.template == "{prompt}\nA:"


def test_what_a_python_caller_gets_wrong_is_also_one_line():
    assert "known fields" in message(lambda: run_spec({"lens": {"kind": "feature", "promt": "x"}}))


# ---- the mechanistic lens

MODEL_YAML = """\
lens:
  kind: mechanistic
  task: ioi
  task_size: 32
  components: heads:10-17,mlp:all
  layers: 10-14
  ablation: clamp
  clamp: 0
  positions: 0,-1
  value: accuracy
explorer:
  kind: proxyspex
  max_order: 3
cross_check: true
"""


def test_yaml_and_flags_make_the_same_spec_for_parts_of_a_model(tmp_path):
    flags = {"task": "ioi", "task_size": "32", "components": "heads:10-17,mlp:all", "layers": "10-14", "ablation": "clamp", "clamp": "0"}
    spec = spec_from("mechanistic", {**flags, "positions": "0,-1", "value": "accuracy", "max_order": "3", "cross_check": True})
    assert spec == load_spec(written(tmp_path, MODEL_YAML))
    assert spec.lens.clamp == 0.0


def test_prompts_are_one_value_of_a_model_and_many_runs_of_a_prompt():
    model, words = spec_from("mechanistic", {"prompts": "rows.jsonl"}), spec_from("feature", {"prompts": "rows.jsonl", "limit": "3"})
    assert (model.lens.prompts, model.examples) == ("rows.jsonl", None)
    assert (words.examples, words.limit) == ("rows.jsonl", 3)
    with pytest.raises(UserError, match="give the prompts of a mechanistic lens as prompts"):
        run_all(run_spec({"lens": {"kind": "mechanistic"}, "examples": "rows.jsonl"}))


def test_files_of_a_model_lens_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "texts.txt"):
        (tmp_path / name).write_text("")
    lens = resolve(spec_from("mechanistic", {"prompts": "rows.jsonl", "references": "texts.txt", "model": "nowhere"})).lens
    assert (lens.prompts, lens.references, lens.model) == (str(tmp_path / "rows.jsonl"), str(tmp_path / "texts.txt"), "nowhere")


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("task: ioi", "task: sums", ["line 3", "lens.task: 'sums' is not known", "'greater-than'"]),
        ("task_size: 32", "task_size: 1", ["line 4", "lens.task_size: 1 is not valid", "greater than or equal to 2"]),
        ("components:", "component:", ["lens.component", "is not a field here", "components"]),
        ("clamp: 0", "clamp: .nan", ["lens.clamp: nan is not valid", "line"]),
        ("clamp: 0", "clamp: 1e39", ["lens.clamp: '1e39' is not valid", "less than or equal to 34028"]),
        ("clamp: 0", "clamp: much", ["lens.clamp: 'much' is not valid", "valid number"]),
        ("kind: mechanistic", "kind: mechanical", ["line 2", "has the unknown kind 'mechanical'", "'mechanistic'"]),
    ],
)
def test_a_wrong_spec_of_parts_of_a_model_is_one_line_too(tmp_path, before, after, parts):
    error = message(lambda: load_spec(written(tmp_path, MODEL_YAML.replace(before, after))))
    for part in parts:
        assert part in error


@pytest.mark.parametrize(
    ("kind", "given", "keep"), [("mechanistic", None, "auto"), ("mechanistic", "0.8", 0.8), ("feature", None, None), ("feature", "auto", "auto")]
)
def test_parts_of_a_model_are_kept_as_often_as_it_takes_and_words_half_the_time(kind, given, keep):
    spec = spec_from(kind, {"prompt": "a b", **({} if given is None else {"keep": given})})
    info = GameInfo("game", tuple(Component(i, f"x{i}", "part") for i in range(30)), {})
    explorer = start_explorer(spec, info)
    assert explorer.options.keep == keep
    assert (len(explorer.ask()) > 32) == (keep == "auto")  # a pilot, or both ends and the single ablations
    assert explorer.keep_probability == (0.8 if keep == 0.8 else 0.5)


class Interrupting:
    """A person who interrupts a run at a phase."""

    def __init__(self, phase):
        self.phase = phase

    def __call__(self, progress):
        if progress.phase == self.phase and progress.done > 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_of_a_model_resumes_to_the_same_answer(tmp_path):
    rows = [{"prompt": prompt, "target": " not", "foil": "!"} for prompt in ("Her acting never fails", "The film was long, but good")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lens = {"kind": "mechanistic", "model": save("llama", tmp_path / "llama"), "prompts": str(tmp_path / "rows.jsonl"), "dtype": "float32", "device": "cpu"}
    spec = run_spec({"lens": lens, "explorer": {"kind": "proxyspex", "budget": 120, "max_order": 2}, "local": True, "store": str(tmp_path / "one.duckdb")})
    with pytest.raises(InterruptedRunError, match="raysp resume halved"):
        run(spec, watch=Interrupting("validate"), run_id="halved")
    with Store.read(tmp_path / "one.duckdb") as store:
        row = store.run_row("halved")
        before = store.run_evaluations("halved").num_rows
    assert row["status"] == "interrupted"
    resumed = run(run_spec(row["spec"]), run_id="halved")
    whole = run(spec.model_copy(update={"store": str(tmp_path / "two.duckdb")}))
    assert 100 < before < whole.evaluations.num_rows
    assert resumed.evaluations.num_rows == whole.evaluations.num_rows
    assert sum(resumed.costs["evaluations"].to_pylist()) == sum(whole.costs["evaluations"].to_pylist())
    assert resumed.interactions["labels"].equals(whole.interactions["labels"])
    assert resumed.interactions["value"].to_pylist() == pytest.approx(whole.interactions["value"].to_pylist(), abs=1e-4)
    assert resumed.summary["verdict"] == whole.summary["verdict"]


# ---- the data lens

DATA_YAML = """\
lens:
  kind: data
  train: corpus:chatterbot:history
  group_by: topic
  epochs: 5
  seeds: 2
explorer:
  kind: proxyspex
  budget: 600
  keep: 0.4
validation:
  top: 8
"""


def test_yaml_and_flags_make_the_same_spec_of_training_examples(tmp_path):
    flags = {"train": "corpus:chatterbot:history", "group_by": "topic", "epochs": "5", "seeds": "2", "budget": "600", "keep": "0.4", "top": "8"}
    assert spec_from("data", flags) == load_spec(written(tmp_path, DATA_YAML))


def options(*path):
    command = typer.main.get_command(raysp.cli.app)
    for name in path:
        command = command.commands[name]
    return {flag: parameter for parameter in command.params for flag in parameter.opts}


@pytest.mark.parametrize("path", [("data",), ("plan", "data")])
def test_data_has_an_option_for_every_field_and_none_twice(path):
    flags = options(*path)
    assert set(flags) >= {"--" + name.replace("_", "-") for name in DataLens.model_fields if name != "kind"}
    names = [parameter.name for parameter in set(flags.values())]
    assert len(names) == len(set(names))
    assert not set(flags) & {"--prompt", "--prompt-file", "--prompts", "--repeat-on"}


def test_subsets_and_fraction_are_the_explorers_budget_and_keep():
    flags = options("data")
    assert flags["--subsets"] is flags["--budget"]
    assert flags["--subsets"].name == "budget"
    assert flags["--fraction"] is flags["--keep"]
    assert flags["--fraction"].name == "keep"
    assert "--subsets" not in options("feature")


def test_the_limit_of_a_data_run_is_of_its_training_examples():
    spec = spec_from("data", {"train": "x", "limit": "50"})
    assert (spec.lens.limit, spec.limit) == (50, None)


def test_trainings_are_checked_less_unless_a_person_says_how_much():
    few = Validation(heldout=60, near=0, top=5, random=5, low_pairs=5)
    assert spec_from("data", {"train": "x"}).validation == few
    assert RunSpec(lens=DataLens(train="x")).validation == few
    assert spec_from("data", {"train": "x", "heldout": "0"}).validation == few.model_copy(update={"heldout": 0})
    assert RunSpec(lens=DataLens(train="x"), validation=Validation(top=10)).validation == few.model_copy(update={"top": 10})
    assert spec_from("feature", {"prompt": "a b"}).validation == Validation()


def test_a_data_spec_survives_the_store(tmp_path):
    spec = load_spec(written(tmp_path, DATA_YAML))
    assert run_spec(json.loads(json.dumps(spec.model_dump(mode="json", exclude_none=True)))) == spec


def test_local_files_of_examples_and_queries_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "asked.jsonl"):
        (tmp_path / name).write_text("")
    lens = resolve(spec_from("data", {"train": "rows.jsonl", "queries": "asked.jsonl"})).lens
    assert (lens.train, lens.queries) == (str(tmp_path / "rows.jsonl"), str(tmp_path / "asked.jsonl"))
    assert resolve(spec_from("data", {"train": "corpus:reviews", "queries": "hf:imdb:test"})).lens.train == "corpus:reviews"


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("epochs: 5", "epochs: 0", ["line 5", "lens.epochs: 0 is not valid", "greater than or equal to 1"]),
        ("group_by:", "group:", ["line 4", "lens.group", "is not a field here", "group_by"]),
        ("top: 8", "top: -1", ["line 12", "validation.top: -1 is not valid"]),
        ("top: 8", "tops: 8", ["line 12", "validation.tops", "is not a field here"]),
    ],
)
def test_a_wrong_data_spec_is_one_line_too(tmp_path, before, after, parts):
    error = message(lambda: load_spec(written(tmp_path, DATA_YAML.replace(before, after))))
    for part in parts:
        assert part in error


def test_fewer_subsets_than_the_explorer_needs_are_refused():
    info = GameInfo("f", tuple(Component(i, f"example {i}", "example") for i in range(64)), {"lens": "data"})
    error = message(lambda: start_explorer(spec_from("data", {"train": "x", "budget": "5"}), info))
    assert "budget: 5 is too small for proxyspex on 64 components; give at least 16" in error


SPECS = Path(__file__).parents[2] / "jobs" / "specs"


@pytest.mark.parametrize(("name", "components", "examples", "asked"), [("data", 32, 32, 6), ("data_reviews", 32, 96, 8)])
def test_the_demonstrations_of_training_examples_can_be_read(name, components, examples, asked):
    lens = load_spec(SPECS / f"{name}.yaml").lens
    training, queries = read_training_set(lens)
    assert (len(training.samples), len(queries.samples), queries.warnings) == (examples, asked, ())
    assert group(training, lens).count == components


def test_a_lens_states_what_an_evaluation_costs_and_how_it_is_checked():
    assert {kind: lens.cost_class for kind, lens in LENSES.items()} == {
        "feature": "forward", "mechanistic": "forward", "data": "training", "function": "forward",
    }  # fmt: skip
    for kind, lens in LENSES.items():
        made = run_spec({"lens": {"kind": kind} | ({"function": len, "n": 3} if kind == "function" else {})})
        assert made.validation == lens.default_validation
    assert LENSES["data"].default_validation.planned(50) < LENSES["feature"].default_validation.planned(50)


def test_functions_with_the_same_options_are_different_lenses():
    one, other = (FunctionLens(len, n=3) for _ in range(2))
    assert one.key != other.key == other.model_copy().key
    assert FeatureLens(prompt="a").key == FeatureLens(prompt="a").key != FeatureLens(prompt="b").key


@pytest.mark.parametrize("what", ["model", "prompt"])
def test_only_lenses_that_vary_are_repeated(what):
    data = run_spec({"lens": {"kind": "data", "train": "corpus:reviews"}, "repeat_on": [f"{what}:other"]})
    with pytest.raises(UserError, match=f"lens: 'data' cannot be repeated on another {what}; use the feature or mechanistic lens"):
        parts(data)
    question, repeat = parts(run_spec({"lens": {"kind": "feature", "prompt": "a b"}, "repeat_on": [f"{what}:other"]}))
    assert (getattr(question.spec.lens, what), getattr(repeat.spec.lens, what)) == (getattr(FeatureLens(prompt="a b"), what), "other")


def test_paths_may_be_given_as_paths(tmp_path):
    model, store, spans = tmp_path / "model", tmp_path / "s.duckdb", tmp_path / "spans.json"
    lens = FeatureLens(prompt="Good film", model=model, unit="spans", spans=spans)
    spec = RunSpec(lens=lens, store=store)
    assert (lens.model, lens.spans, spec.store) == (str(model), str(spans), str(store))
    nested = RunSpec.model_validate({"lens": {"kind": "data", "train": tmp_path / "train.jsonl", "queries": tmp_path / "queries.jsonl"}})
    assert nested.lens.train == str(tmp_path / "train.jsonl")
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
