"""Whatever a spec file holds, it is a spec or an error in one line: no traceback, no hang, no crash."""

import os

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raysp
from raysp.specs.documents import parse_document
from raysp.specs.explorers import EXPLORER_OPTIONS
from raysp.specs.run import LENSES, RunSpec, load_spec
from raysp.specs.validation import Validation

#: Specs of a test here; the environment variable asks for more, as `make fuzz` does.
EXAMPLES = int(os.environ.get("RAYSP_FUZZ_EXAMPLES", "200"))
FIELDS = sorted(
    {name for model in (RunSpec, Validation, *LENSES.values(), *EXPLORER_OPTIONS.values()) for name in model.model_fields}
    | {"<<", "=", "1", "~", "''", "!!str x"}
)

#: Scalars as YAML writes them, from harmless to hostile.
KNOWN = [
    r"0",
    r"1",
    r"-1",
    r"7",
    r"1.5",
    r".5",
    r"1e3",
    r".nan",
    r".inf",
    r"-.inf",
    r"1e400",
    r"0x10",
    r"0o7",
    r"0b1",
    r"1_000",
    r"1:30",
    r"9223372036854775807",
    r"9223372036854775808",
    r"true",
    r"no",
    r"null",
    r"~",
    r"''",
    r'""',
    r"a",
    r"a b",
    r"feature",
    r"mechanistic",
    r"data",
    r"function",
    r"screen",
    r"proxyspex",
    r"spex",
    r"singles",
    r"exhaustive",
    r"auto",
    r"heads",
    r"gradient",
    r"2001-01-01",
    r"2001-99-99",
    r"20000-01-01",
    r"!!int x",
    r"!!float x",
    r"!!bool x",
    r"!!timestamp x",
    r"!!binary x",
    r"!!binary YQ==",
    r"!!set {a}",
    r"!!omap [a: 1]",
    r"!!python/name:os.system",
    r"!unknown x",
    r'"\0"',
    r'"\ud800"',
    r'"\x1b[31m"',
    r"*a",
    r"&a 1",
    r"*b",
    r"&b [*b]",
    r"=",
    r"{",
]
SCALARS = st.one_of(
    st.sampled_from(KNOWN),
    st.integers().map(str),
    st.floats().map(str),
    st.integers(min_value=300, max_value=5000).map(lambda count: "9" * count),
    st.text(max_size=12).map(lambda text: yaml.safe_dump(text, default_style='"', allow_unicode=False).strip()),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(st.sampled_from(FIELDS), inner), max_size=5).map(lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"),
    ),
    max_leaves=12,
)


def lens_of(kind):
    names = sorted({"kind", *LENSES[kind].model_fields} - {"kind"})
    return st.lists(st.tuples(st.sampled_from(names), VALUES), max_size=4).map(lambda pairs: [("kind", kind), *pairs])


BLOCKS = st.one_of(
    st.sampled_from(sorted(LENSES)).flatmap(lens_of).map(lambda pairs: "lens:\n" + "".join(f"  {key}: {value}\n" for key, value in pairs)),
    st.tuples(st.sampled_from(FIELDS), VALUES).map(lambda pair: f"{pair[0]}: {pair[1]}\n"),
    st.tuples(st.sampled_from(sorted(EXPLORER_OPTIONS)), st.sampled_from(FIELDS), VALUES).map(
        lambda parts: f"explorer: {{kind: {parts[0]}, {parts[1]}: {parts[2]}}}\n"
    ),
    st.tuples(st.sampled_from(sorted(Validation.model_fields)), VALUES).map(lambda pair: f"validation: {{{pair[0]}: {pair[1]}}}\n"),
    st.sampled_from(
        [
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "# a comment\n",
            "- a\n",
            "? x\n",
            "&a lens: *a\n",
            "\t\n",
            "[" * 40 + "\n",
            "{a: " * 40 + "\n",
            "\ufeff",
            "|\n  a\n",
            "!!map {}\n",
        ]
    ),
)
DOCUMENTS = st.lists(BLOCKS, min_size=1, max_size=6).map("".join)
#: A document with a few characters replaced, as by a slip or by damage.
DAMAGED = st.tuples(DOCUMENTS, st.lists(st.tuples(st.integers(0, 400), st.characters()), max_size=3)).map(
    lambda given: "".join(dict(given[1]).get(at, character) for at, character in enumerate(given[0]))
)


def answer(load):
    """The spec, or the line of its error."""
    try:
        return load()
    except raysp.UserError as error:
        line = str(error)
    assert line
    assert "\n" not in line
    assert len(line) < 1500
    return line


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
@given(st.one_of(DOCUMENTS, DAMAGED, st.text(max_size=60)))
def test_a_text_is_a_spec_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "spec.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = answer(lambda: load_spec(path))
    if isinstance(found, RunSpec):
        assert RunSpec.model_validate_json(found.model_dump_json()) == found


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_a_spec_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    answer(lambda: load_spec(path))


LIMITS = {
    "aliases of aliases": (
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        "line 6: .* more than 100,000 values",
    ),
    "merged mappings": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
        "more than 100,000 values",
    ),
    "brackets": ("[" * 3000, "line 1: .* nested deeper than 32 levels"),
    "a list in itself": ("a: &a [1, *a]", "line 1: .* contains itself"),
    "a mapping in itself": ("&a {a: *a}", "contains itself"),
    "a date": ("x: 1\nname: 2001-99-99", "line 2: .* cannot be read as timestamp .month must be in 1..12"),
    "a tag": ("seed: !!int x", "cannot be read as int"),
    "many digits": ("seed: " + "9" * 5000, "cannot be read as int"),
    "many hexadecimal digits": ("seed: 0x" + "f" * 5000, "more than 64 bits"),
    "half a surrogate pair": ('name: "\\ud800"', "half of a surrogate pair"),
    "NUL": ('name: "\\0"', "NUL character"),
    "a list": ("[1]", "has no fields"),
    "nothing": ("", "has no fields"),
    "null": ("null", "has no fields"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_document_beyond_the_limits_is_refused_with_its_line(name):
    text, message = LIMITS[name]
    with pytest.raises(raysp.UserError, match=rf"^spec x.yaml.*{message}"):
        parse_document(text, where="spec x.yaml")


def test_aliases_within_the_limits_stand_for_their_values():
    fields, lines = parse_document("a: &a {x: [1, 2]}\nb: *a\nc:\n  <<: *a\n  y: 3\n", where="spec")
    assert fields == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
    assert lines["c", "y"] == 5


def test_a_large_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("#" * (1 << 19))
    with pytest.raises(raysp.UserError, match=r"large.yaml' is larger than 256 KiB"):
        load_spec(path)
