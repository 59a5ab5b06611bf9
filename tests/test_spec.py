"""A spec says everything, reads the same from YAML and from flags, and answers bad input with one line."""

import json

import pytest

from raysp.commands.options import spec_from
from raysp.errors import UserError
from raysp.spec import load_spec, resolve_paths, run_spec

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
        ("unit: word", "untis: word", ["line 6", "lens.untis", "is no field here", "known fields", "unit"]),
        ("kind: screen", "kind: magic", ["line 8", "explorer", "'magic'", "'proxyspex'"]),
        ("kind: screen", "knid: screen", ["explorer", "has no kind", "kind: screen"]),
        ("seed: 3", "seed: three", ["line 10", "seed: 'three'", "valid integer"]),
        ("seed: 3", "sead: 3", ["line 10", "sead", "is no field here", "seed"]),
        ("seed: 3", "seed: [3", ["line 11", "is no YAML"]),
        ("  top_k: 0.5", "  top_k: 0.5\n  max_order: 3", ["line 10", "explorer.max_order", "is no field here", "top_k"]),
    ],
)
def test_a_wrong_spec_names_line_field_value_and_mend(tmp_path, before, after, parts):
    said = message(lambda: load_spec(written(tmp_path, YAML.replace(before, after))))
    for part in parts:
        assert part in said


@pytest.mark.parametrize("text", ["", "- a\n- list\n", "just text\n"])
def test_a_spec_that_holds_no_fields_says_so(tmp_path, text):
    assert "holds no fields" in message(lambda: load_spec(written(tmp_path, text)))


def test_a_missing_spec_file_says_so(tmp_path):
    assert "cannot be read" in message(lambda: load_spec(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"prompt": "a b", "explorer": "magic"}, ["explorer: 'magic' is not known", "proxyspex"]),
        ({"prompt": "a b", "explorer": "proxyspex", "top_k": "0.2"}, ["--top-k: '0.2' is no option of proxyspex", "--explorer screen"]),
        ({"prompt": "a b", "unit": "syllable"}, ["lens.unit: 'syllable' is not known", "'token'"]),
        ({"prompt": "a b", "budget": "many"}, ["explorer.budget: 'many'", "valid integer"]),
        ({"prompt_file": "nowhere.txt"}, ["prompt_file: 'nowhere.txt' cannot be read"]),
    ],
)
def test_wrong_flags_name_field_value_and_mend(flags, parts):
    said = message(lambda: spec_from("feature", flags))
    for part in parts:
        assert part in said


def test_scores_from_gradients_are_no_file_and_a_cross_check_is_a_flag():
    spec = spec_from("feature", {"prompt": "a b", "explorer": "screen", "scores": "gradient", "cross_check": True})
    assert resolve_paths(spec).explorer.scores == "gradient"
    assert spec.cross_check
    assert not spec_from("feature", {"prompt": "a b"}).cross_check


def test_a_backslash_n_typed_in_a_template_is_a_line_break():
    assert spec_from("feature", {"prompt": r"a\nb", "template": r"{prompt}\nA:"}).lens.template == "{prompt}\nA:"


def test_what_a_python_caller_gets_wrong_is_also_one_line():
    assert "known fields" in message(lambda: run_spec({"lens": {"kind": "feature", "promt": "x"}}))
