"""A spec that is written down, as YAML, as a command or as Python, is the same spec when it is read again."""

import datetime as dt
import shlex

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

import raysp
from raysp.cli import app
from raysp.commands.options import spec_from
from raysp.errors import UserError
from raysp.specs.documents import parse_document
from raysp.specs.run import RunSpec, run_spec
from raysp.specs.writing import as_command, as_python, as_yaml

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXT = st.one_of(
    ANY,
    st.sampled_from(
        ["", "-x", "--budget", "it's", '"', "\\n", "a\nb", "\t", "$HOME `id`", "SPEC", "a\nSPEC\nb", "null", "0x1f", "é😀\u2028", " lead", "\x85", "#"]
    ),
)
WORD = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
COUNT = st.integers(1, 10_000)
SHARE = st.floats(0.01, 0.99)


def some(**fields):
    return st.fixed_dictionaries({}, optional=fields)


FEATURE = some(
    prompt=TEXT, template=TEXT, question=TEXT, target=TEXT, foil=TEXT, delimiter=TEXT, replacement=TEXT, model=WORD, max_new_tokens=st.integers(1, 256),
    unit=st.sampled_from(["token", "word", "sentence"]), whole_characters=st.booleans(), chat=st.booleans(), spans=st.just("[[0, 1]]"),
    date=st.dates(dt.date(2000, 1, 1)), dtype=st.sampled_from(["auto", "float32"]),
)  # fmt: skip
MECHANISTIC = some(
    prompt=TEXT, template=TEXT, components=st.sampled_from(["heads", "heads:1-2,mlp:all"]), layers=st.just("1,3-5"), task=st.sampled_from(["ioi", "facts"]),
    ablation=st.just("clamp"), clamp=st.floats(-1e6, 1e6), positions=st.just("0,-1"), task_seed=st.integers(0, 99),
)  # fmt: skip
DATA = some(
    train=WORD,
    queries=WORD,
    components=st.integers(2, 99),
    limit=st.integers(2, 99),
    learning_rate=SHARE,
    epochs=COUNT,
    seeding=st.sampled_from(["own", "shared"]),
)
EXPLORERS = st.one_of(
    some(budget=COUNT, max_order=st.integers(1, 10), keep=st.one_of(SHARE, st.just("auto")), adaptive=st.booleans(), until_r2=SHARE).map(
        lambda fields: {"kind": "proxyspex", **fields}
    ),
    some(top_k=st.one_of(SHARE, st.integers(1, 9), st.just("auto")), order=st.integers(2, 3), scores=st.one_of(st.just("gradient"), st.lists(SHARE, max_size=3)),
         always_include=st.lists(st.one_of(st.integers(0, 9), TEXT), max_size=3)).map(lambda fields: {"kind": "screen", **fields}),
    some(b=st.integers(1, 20), decoder=st.sampled_from(["soft", "hard"])).map(lambda fields: {"kind": "spex", **fields}),
    some(index=st.sampled_from(["fsii", "bii"])).map(lambda fields: {"kind": "exhaustive", **fields}),
    st.just({"kind": "singles"}),
)  # fmt: skip
CHECKS = some(heldout=st.integers(0, 300), top=st.integers(0, 20), random=st.integers(0, 20), low_pairs=st.integers(0, 30))
RUNS = some(
    seed=st.integers(0, 2**31 - 1), name=TEXT, cross_check=st.booleans(), examples=WORD, limit=COUNT, store=WORD, local=st.booleans(), threads=st.integers(1, 8),
    repeat_on=st.lists(WORD.map("model:{}".format), max_size=2),
)  # fmt: skip


@st.composite
def specs(draw):
    kind, fields = draw(st.sampled_from([("feature", FEATURE), ("mechanistic", MECHANISTIC), ("data", DATA)]))
    parts = {"lens": {"kind": kind, **draw(fields)}, "explorer": draw(EXPLORERS), "validation": draw(CHECKS)}
    try:
        return run_spec({**parts, **draw(RUNS)})
    except UserError:  # such as a model whose name looks like a token
        return RunSpec(lens=raysp.FeatureLens(prompt="x"))


def read_command(text):
    """The spec of a shell command, by the parser of the command line."""
    first, _, rest = text.partition("\n")
    if first.startswith("raysp run /dev/stdin <<"):
        end = shlex.split(first)[-1].removeprefix("<<")
        document, found, after = rest.rpartition(f"\n{end}")
        assert found
        assert not after
        assert end not in document.splitlines()
        return run_spec(parse_document(f"{document}\n", where="spec")[0])
    program, kind, *words = shlex.split(text)
    assert program == "raysp"
    command = typer.main.get_command(app).commands[kind]
    given = command.make_context(kind, words).params
    return spec_from(kind, {name: value for name, value in given.items() if name not in {"help_all", "report", "json", "server"}})


def told_in_yaml(spec):
    return run_spec(parse_document(as_yaml(spec), where="spec")[0])


def storable(spec):
    """Whether YAML takes the texts of a spec at all: a document holds no NUL, for one."""
    try:
        parse_document(spec.model_dump_json(), where="spec")
    except UserError:
        return False
    return True


@given(specs())
def test_yaml_reads_back_as_the_same_spec(spec):
    if storable(spec):
        assert told_in_yaml(spec).model_dump() == spec.model_dump()


EMPTY = run_spec({"lens": {"kind": "feature", "prompt": "x"}, "explorer": {"kind": "screen", "scores": []}})


@given(specs())
@example(EMPTY)
def test_a_command_reads_back_as_the_same_spec(spec):
    if storable(spec):
        assert read_command(as_command(spec)).model_dump() == spec.model_dump()


@given(specs())
def test_python_makes_the_same_spec(spec):
    made = {}
    exec(as_python(spec).rpartition("\nresult")[0], made)
    assert made["spec"].model_dump() == spec.model_dump()


def test_what_is_usual_is_left_out():
    spec = run_spec({"lens": {"kind": "feature", "prompt": "It's good", "template": "Review: {prompt}\nSentiment:"}, "validation": {"heldout": 8}})
    assert as_command(spec) == r"""raysp feature --prompt 'It'"'"'s good' --template 'Review: {prompt}\nSentiment:' --heldout 8"""
    assert as_yaml(spec) == 'lens:\n  kind: feature\n  prompt: It\'s good\n  template: "Review: {prompt}\\nSentiment:"\nvalidation:\n  heldout: 8\n'
    assert as_python(spec) == (
        "import raysp\n\nspec = raysp.RunSpec(\n    lens=raysp.FeatureLens(prompt=\"It's good\", template='Review: {prompt}\\nSentiment:'),\n"
        "    validation=raysp.Validation(heldout=8),\n)\nresult = raysp.run(spec)\n"
    )


def test_several_runs_are_asked_for_as_such():
    assert as_python(run_spec({"lens": {"kind": "feature", "prompt": "x"}, "repeat_on": ["prompt:y"]})).endswith("results = raysp.run_all(spec)\n")


def test_a_function_is_refused():
    spec = RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3))
    for write in (as_yaml, as_command, as_python):
        with pytest.raises(UserError, match="Python function"):
            write(spec)
