"""What a service allows: questions that arrive are checked once, in one line, and nothing is opened or run before."""

import builtins
import io
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.errors import UserError
from raysp.specs.lenses import DataLens, FeatureLens, FunctionLens, MechanisticLens
from raysp.specs.policy import EVERYTHING, NO_CONSENT, Consent, Policy, check, load_policy
from raysp.specs.run import LENSES, RunSpec, run_spec

HASH = "0" * 64
BLOB = f"blob:{HASH}:/home/ann/data.jsonl"


def total(masks):
    return masks.sum(1)


REFUSED = {
    "a folder of the service as a model": (RunSpec(lens=FeatureLens(model="/srv/models/one")), "model: '/srv/models/one' names a folder", "files"),
    "a folder of its user": (RunSpec(lens=FeatureLens(model="~/one")), "model: '~/one' names a folder", "files"),
    "a folder beside it": (RunSpec(lens=FeatureLens(model="../one")), "model: '../one' names a folder", "files"),
    "a folder below it": (RunSpec(lens=FeatureLens(model="a/b/c")), "model: 'a/b/c' names a folder", "files"),
    "a folder to repeat on": (RunSpec(lens=FeatureLens(prompt="a"), repeat_on=("model:/srv/one",)), "model: '/srv/one' names a folder", "files"),
    "a training set": (RunSpec(lens=DataLens(train="/srv/rows.jsonl")), "train: '/srv/rows.jsonl' names a file", "files"),
    "a training set beside it": (RunSpec(lens=DataLens(train="rows.jsonl")), "train: 'rows.jsonl' names a file", "files"),
    "a name that may be a folder": (RunSpec(lens=DataLens(train="owner/set")), "train: 'owner/set' names a file .*write hf:", "files"),
    "a folder as a name on the hub": (RunSpec(lens=DataLens(train="hf:../secret")), "train: 'hf:../secret' names a file", "files"),
    "queries": (RunSpec(lens=DataLens(train=BLOB, queries="/srv/q.csv")), "queries: '/srv/q.csv' names a file", "files"),
    "prompts": (RunSpec(lens=MechanisticLens(prompts="/srv/p.jsonl")), "prompts: '/srv/p.jsonl' names a file", "files"),
    "references": (RunSpec(lens=MechanisticLens(references="[odd name]")), r"references: '\[odd name\]' names a file", "files"),
    "spans": (RunSpec(lens=FeatureLens(spans="/etc/passwd")), "spans: '/etc/passwd' names a file", "files"),
    "scores": (RunSpec(lens=FeatureLens(), explorer={"kind": "screen", "scores": "/etc/passwd"}), "scores: '/etc/passwd' names a file", "files"),
    "examples": (RunSpec(lens=FeatureLens(), examples="/srv/p.jsonl"), "examples: '/srv/p.jsonl' names a file", "files"),
    "a store": (RunSpec(lens=FeatureLens(), store="/srv/s.duckdb"), "store: '/srv/s.duckdb' names a file", "files"),
    "pickled weights": (RunSpec(lens=FeatureLens(allow_pickle=True)), "allow_pickle: is set, and pickled weights can run code", "pickled_weights"),
    "remote code": (RunSpec(lens=DataLens(allow_remote_code=True)), "allow_remote_code: is set, and this service runs no code of models", "remote_code"),
    "a function": (RunSpec(lens=FunctionLens(total, n=3)), "lens: 'function' is a Python function, which this service does not run", "functions"),
}


@pytest.mark.parametrize("spec", [row[0] for row in REFUSED.values()], ids=REFUSED)
def test_what_is_refused_says_in_one_line_what_to_change_in_the_policy(spec, request):
    _, said, allowance = REFUSED[request.node.callspec.id]
    with pytest.raises(UserError, match=f"^{said}.*; leave it out, or have {allowance}: true written into the policy of the service$"):
        check(Policy(), spec)
    check(Policy(**{allowance: True}), spec)
    check(EVERYTHING, spec)


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(lens=FeatureLens(prompt="a b", spans="[[0, 1]]")),
        RunSpec(lens=FeatureLens(model="gpt2", spans=BLOB)),
        RunSpec(lens=MechanisticLens(model="Qwen/Qwen2.5-0.5B", prompts=BLOB, references=BLOB), explorer={"kind": "screen", "scores": "gradient"}),
        RunSpec(lens=FeatureLens(), explorer={"kind": "screen", "scores": BLOB}),
        RunSpec(lens=DataLens(train="hf:owner/set:main:train", queries="corpus:chatterbot:ai,food")),
    ],
)
def test_names_on_the_hub_and_content_are_allowed(spec):
    check(Policy(), spec)


def test_models_and_data_sets_are_allowed_by_name():
    policy = Policy(models=("smollm2-*", "Qwen/*"), data_sets=("owner/*",))
    check(policy, RunSpec(lens=FeatureLens()))
    check(policy, RunSpec(lens=DataLens(train="hf:owner/set:train", model="Qwen/Qwen2.5-0.5B")))
    with pytest.raises(
        UserError, match=r"model: 'gpt2' is not among the models of this service; use one of smollm2-\*, Qwen/\*, or add it to models in its policy"
    ):
        check(policy, RunSpec(lens=FeatureLens(model="gpt2")))
    with pytest.raises(UserError, match="model: 'gpt2' is not among the models"):
        check(policy, RunSpec(lens=FeatureLens(prompt="a"), repeat_on=("model:gpt2",)))
    with pytest.raises(UserError, match=r"train: 'hf:other/set' is not among the data sets of this service; use one of owner/\*"):
        check(policy, RunSpec(lens=DataLens(train="hf:other/set")))


def test_a_policy_is_one_yaml(tmp_path):
    (tmp_path / "p.yaml").write_text("models: [smollm2-135m-instruct]\nremote_code: true\n")
    assert load_policy(tmp_path / "p.yaml") == Policy(models=("smollm2-135m-instruct",), remote_code=True)
    (tmp_path / "p.yaml").write_text("")
    assert load_policy(tmp_path / "p.yaml") == Policy()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pickles: true", "policy .*p.yaml, pickles: True is not valid .*; known fields: models, data_sets, files,"),
        ("files: perhaps", "policy .*p.yaml, files: 'perhaps' is not valid"),
        ("[1, 2", "policy: .*p.yaml' cannot be read"),
        ("- 1", "policy .*p.yaml, policy: .* is not valid"),
        ("files: !!int x", "policy: .*p.yaml' cannot be read"),
        ("[" * 3000, "policy: .*p.yaml' cannot be read"),
    ],
)
def test_a_policy_that_is_none_is_one_line(tmp_path, text, said):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_policy(tmp_path / "p.yaml")
    with pytest.raises(UserError, match=r"policy: .*nothing.yaml' cannot be read \(.*No such file"):
        load_policy(tmp_path / "nothing.yaml")


def test_a_stored_question_runs_no_code_unless_that_is_allowed_again():
    lens = FeatureLens(model="owner/model", allow_remote_code=True).model_dump(mode="json")
    with pytest.raises(UserError, match=r"^allow_remote_code: was set when run r was asked: .*; give --allow-remote-code again if you trust owner/model$"):
        Consent(allow_pickle=True).check("r", lens)
    Consent(allow_remote_code=True).check("r", lens)
    with pytest.raises(UserError, match=r"^allow_pickle: was set when run r was asked: it loads pickled weights"):
        Consent(allow_remote_code=True).check("r", DataLens(train="t", allow_pickle=True).model_dump(mode="json"))
    NO_CONSENT.check("r", FunctionLens(total, n=3).model_dump(mode="json"))


# ---- whatever arrives

NAMES = sorted({name for lens in LENSES.values() for name in lens.model_fields} | set(RunSpec.model_fields) | {"scores", "kind", "self", "budget", "top_k"})
TEXTS = (
    st.sampled_from(["feature", "mechanistic", "data", "function", "screen", "/etc/passwd", "~/.ssh/id_rsa", "hf:../x", "blob:x", BLOB, "auto", "mean"])
    | st.text()
)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4), max_leaves=12
)
PARTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
REQUESTS = VALUES | st.fixed_dictionaries(
    {"lens": PARTS | st.builds(lambda kind, rest: {**rest, "kind": kind}, st.sampled_from(list(LENSES)), PARTS)},
    optional={"explorer": PARTS, "validation": PARTS, "repeat_on": VALUES, "examples": TEXTS, "store": TEXTS, "name": TEXTS, "seed": SCALARS},
)


def answered(text):
    """The question that a text is, or the line that says why it is none."""
    try:
        spec = run_spec(json.loads(text))
        check(Policy(), spec)
    except UserError as error:
        return str(error)
    return spec


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_whatever_arrives_is_a_valid_question_or_one_line_and_opens_no_file(request_):
    text = json.dumps(request_)
    opened = []
    real = (builtins.open, io.open, os.open)
    try:
        builtins.open = io.open = os.open = lambda *args, **_: opened.append(args) or (_ for _ in ()).throw(AssertionError(args))
        told = answered(text)
    finally:
        builtins.open, io.open, os.open = real
    assert not opened
    assert (isinstance(told, RunSpec) and run_spec(told.model_dump(mode="json")) == told) or "\n" not in told
