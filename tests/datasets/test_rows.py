"""Cells are what the file says in every format, columns that nobody uses do not matter, and rows are written as they were read."""

import bz2
import csv
import gzip
import io
import json
import lzma

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.datasets.csv_rows import CsvRows
from raysp.datasets.examples import read_examples
from raysp.datasets.json_rows import JsonRows
from raysp.datasets.prompt_sets import read_questions, references
from raysp.datasets.sources import explained, open_rows, read_repository, write_rows
from raysp.datasets.training_sets import read_training_set
from raysp.errors import UserError
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens

#: Texts that readers take for something else.
LOOKALIKES = [
    "2021-01-10", "2021-01-10T00:00:00", "10:30", "2021-01-10 10:30:00+01:00", "007", "1", "1.0", "1e5", "12345678901234567890123", "NaN", "nan", "NA", "null",
    "None", "true", "True", "inf", "-0", "0x10", "1_000", "-", "#N/A", "{}", "[1]", "a\u2028b", "\u00a0x",
]  # fmt: skip


def pairs(answers):
    return [{"prompt": f"Invoice {i} was issued on", "completion": answer} for i, answer in enumerate(answers)]


def saved(path, rows):
    """The rows as a file of the format that the path is named after."""
    kind = path.suffixes[0]
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    if kind == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = (json.dumps(rows) if kind == ".json" else "\n".join(map(json.dumps, rows))).encode()
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(data))
    return str(path)


FILES = ["t.jsonl", "t.json", "t.ndjson", "t.csv", "t.parquet", "t.jsonl.gz", "t.json.gz", "t.csv.gz", "t.csv.bz2", "t.jsonl.xz", "t.parquet.gz"]


@pytest.mark.parametrize("name", FILES)
def test_a_text_stays_what_the_file_says_whatever_it_looks_like(tmp_path, name):
    if name == "t.parquet.gz":
        (tmp_path / name).write_bytes(gzip.compress(open(saved(tmp_path / "t.parquet", pairs(LOOKALIKES)), "rb").read()))  # noqa: PTH123, SIM115
    else:
        saved(tmp_path / name, pairs(LOOKALIKES))
    training, queries = read_training_set(DataLens(train=str(tmp_path / name), queries=str(tmp_path / name)))
    assert [sample.completion for sample in training.samples] == LOOKALIKES
    assert [sample.completion for sample in queries.samples] == LOOKALIKES


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.parquet"])
def test_prompts_examples_references_and_queries_are_read_alike(tmp_path, name):
    rows = [{"prompt": f"{text} is", "target": text, "foil": text[::-1]} for text in LOOKALIKES]
    path = saved(tmp_path / name, rows)
    asked = read_questions("prompts", path)
    assert [(question.prompt, question.target, question.foil) for question in asked] == [tuple(row.values()) for row in rows]
    lenses = [lens for _, lens in read_examples(path, FeatureLens())]
    assert [(lens.prompt, lens.target, lens.foil) for lens in lenses] == [tuple(row.values()) for row in rows]
    lens = MechanisticLens(prompt="x", ablation="mean", references=path)
    assert references(lens, asked[:1]) == [row["prompt"] for row in rows]


@pytest.mark.parametrize("written", ["1", "1.0", "1.50", "1e400", "-0.0", "123456789012345678901234567890", "NaN", "true", "false"])
def test_a_number_or_a_truth_value_is_read_as_it_is_written(tmp_path, written):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(f'{{"prompt": "Invoice {i}", "completion": {written}}}' for i in range(3)))
    training, _ = read_training_set(DataLens(train=str(path), query_count=1))
    assert {sample.completion for sample in training.samples} == {written}
    path.write_text(f'[{{"prompt": "Invoice", "target": {written}}}]')
    assert read_questions("prompts", str(path))[0].target == written


def test_columns_of_parquet_are_text_as_python_writes_them(tmp_path):
    table = pa.table(
        {"prompt": ["a"], "n": [7], "x": [1.0], "narrow": pa.array([0.1], pa.float32()), "yes": [True], "day": pa.array([18637], pa.date32()), "none": [None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    rows = open_rows("train", str(tmp_path / "t.parquet"))
    assert list(rows.texts("train", rows.names)) == [{"prompt": "a", "n": "7", "x": "1.0", "narrow": "0.1", "yes": "true", "day": "2021-01-10"}]


def test_times_that_a_library_made_of_text_are_refused(tmp_path):
    source = saved(tmp_path / "t.jsonl", pairs(["2021-01-10", "2022-01-10", "2023-01-10"]))
    made = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(tmp_path / "cache"))
    made.save_to_disk(tmp_path / "made")
    with pytest.raises(UserError, match="train: 'completion' holds times that were text in the JSON file"):
        read_training_set(DataLens(train=str(tmp_path / "made"), query_count=1))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_text_files_of_a_hub_are_read_as_they_are_written(tmp_path, kind, monkeypatch):
    # A folder is to the library what a repository of the hub is.
    files = [pairs(["2021-01-10", "007"]), [{**row, "more": "1"} for row in pairs(["NA", "1.0"])]]
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for number, rows in enumerate(files):
        saved(tmp_path / "owner" / "name" / f"train-{number}.{kind}", rows)
    saved(tmp_path / "owner" / "name" / f"test.{kind}", pairs(["another"]))
    monkeypatch.chdir(tmp_path)
    rows = read_repository("train", "hf:owner/name")
    assert rows.cells("completion") == ["2021-01-10", "007", "NA", "1.0"]
    assert (rows.cells("more"), rows.column("completion").filled) == ([None, None, "1", "1"], 4)
    assert [json.loads(line) for line in rows.json_lines([2, 0])] == [files[1][0], files[0][0]]
    assert read_repository("train", "hf:owner/name:test").cells("completion") == ["another"]


@pytest.mark.parametrize("name", ["hf:owner/name", "hf:json", "text"])
def test_a_name_on_the_hub_never_reads_files_of_this_machine(tmp_path, name, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    saved(tmp_path / "owner" / "name" / "train.jsonl", pairs(["secret"]))
    saved(tmp_path / "train.jsonl", pairs(["secret"]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"train: '{name}' names a local folder or a format, not a data set on the hub"):
        open_rows("train", name)


def test_a_type_that_changes_between_files_is_one_line_with_the_row_of_them_all(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    for number, cells in enumerate((["a", "b"], [None, 3])):
        saved(tmp_path / "owner" / "name" / f"train-{number}.jsonl", pairs(cells))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="train row 4, completion: '3' is a number, and the rows before have text"):
        read_repository("train", "hf:owner/name").check("train", "completion")


def test_a_cache_that_cannot_be_written_is_one_line_that_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    saved(tmp_path / "owner" / "name" / "train.parquet", pairs(["a", "b"]))
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    cached = pytest.raises(UserError, match=r"train: 'hf:owner/name' cannot be cached \(Not a directory: .*\); set HF_HOME to a folder")
    with cached, explained("train", "hf:owner/name"):
        read_repository("train", "hf:owner/name")


def large(tmp_path, last):
    """JSON lines of more than ten megabytes, the last of which is given."""
    path = tmp_path / "large.jsonl"
    row = json.dumps({"id": 1, "prompt": "a question " + "x" * 1000, "completion": "an answer", "noise": "n" * 1000})
    path.write_text("\n".join([row] * 5000 + [last]))
    assert path.stat().st_size > 10_000_000
    return str(path)


@pytest.mark.parametrize(
    "last",
    [
        '{"id": 2, "prompt": "last", "completion": "one", "noise": "n", "more": {"a": [1]}}',
        '{"id": "two", "prompt": "last", "completion": "one", "noise": ["n"]}',
        '{"prompt": "last", "completion": "one", "text": "t", "label": "l", "messages": 3}',
    ],
)
def test_columns_that_are_not_used_do_not_matter(tmp_path, last):
    path = large(tmp_path, last)
    training, _ = read_training_set(DataLens(train=path, queries=path, query_count=1))
    assert (len(training.samples), training.samples[-1].prompt, training.samples[-1].completion) == (5001, "last", "one")


@pytest.mark.parametrize(
    ("cell", "message"), [("7", "'7' is a number"), ("true", "True is true or false"), ('["one"]', r"\['one'\] is a list"), ("{}", "an object")]
)
def test_a_used_column_that_changes_type_is_one_line_with_its_row(tmp_path, cell, message):
    path = large(tmp_path, f'{{"prompt": "last", "completion": {cell}}}')
    with pytest.raises(UserError, match=f"train row 5001, completion: .*{message}.*, and the rows before have text; write all cells of the column alike"):
        read_training_set(DataLens(train=path, queries=path, query_count=1))


def test_a_type_that_changes_behind_the_limit_does_not_matter(tmp_path):
    path = saved(tmp_path / "t.jsonl", [{"prompt": "a", "target": "b"}, {"prompt": "c", "target": 4}])
    assert len(read_examples(path, FeatureLens(), 1)) == 1
    with pytest.raises(UserError, match="examples row 2, target"):
        read_examples(path, FeatureLens())


def test_an_index_column_of_pandas_and_headers_with_blanks_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",prompt , completion\n0,a,b\n1,c, d\n2,e,f\n")
    training, queries = read_training_set(DataLens(train=str(path), queries=str(path)))
    assert [(sample.prompt, sample.completion) for sample in training.samples] == [("a", "b"), ("c", " d"), ("e", "f")]
    assert queries.samples[0].extra == {"": "0", "prompt": "a", "completion": "b"}


def test_quotation_marks_behind_blanks_are_quotation_marks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"prompt", "completion"\n"a, b", "c ""d"""\n"e", "f"\n')
    rows = open_rows("train", str(path))
    assert list(rows.take(range(2))) == [{"prompt": "a, b", "completion": 'c "d"'}, {"prompt": "e", "completion": "f"}]


def test_names_of_json_are_compared_without_blanks(tmp_path):
    path = saved(tmp_path / "t.jsonl", [{" prompt": f"a{i}", "completion ": "b"} for i in range(4)])
    training, _ = read_training_set(DataLens(train=path, query_count=1))
    assert {sample.completion for sample in training.samples} == {"b"}


@pytest.mark.parametrize("text", ["prompt,completion, prompt\na,b,c\n", '{"prompt": "a", "prompt ": "c", "completion": "b"}\n'])
def test_a_used_name_of_two_columns_is_refused(tmp_path, text):
    path = tmp_path / ("t.csv" if text.startswith("prompt") else "t.jsonl")
    path.write_text(text)
    with pytest.raises(UserError, match="train: 'prompt' is the name of two columns; rename one of them"):
        read_training_set(DataLens(train=str(path), queries=str(path)))


BROKEN = {
    "t.jsonl": ('{"prompt": "a"}\n\n{"prompt": }\n', r"is not valid JSON \(line 3, column 12"),
    "u.jsonl": ('{"prompt": "a"} x\n', r"is not valid JSON \(line 1, column 17: more text after the row\)"),
    "v.jsonl": ('{"prompt": "a"}\n[1]\n', r"has a line that is not a JSON object \(line 2\)"),
    "t.json": ('[{"prompt": "a"},\n {"prompt": }]', r"is not valid JSON \(line 2, column 13"),
    "u.json": ('[{"prompt": "a"}, 3]', r"has an element that is not an object \(element 2\)"),
    "v.json": ('{"version": 1,\n "data": [{"prompt": "a"}]}', "is one JSON object"),
    "w.json": ("[" * 100_000, "is nested too deeply"),
    "t.csv": ('prompt,completion\n"a,b\nc,d\n', r"is not valid CSV \(in the row that begins at line 2"),
    "u.csv": ("prompt,completion\na,b\nc,d,e\n", "has 3 cells in line 3, and its header has 2"),
    "t.jsonl.gz": ('{"prompt": "a"}', "cannot be read"),
    "t.parquet": ("PAR1", "cannot be read"),
    "w.jsonl": ('{"prompt": "\\ud83d"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_says_where(tmp_path, name):
    text, message = BROKEN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_questions("prompts", str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("prompt,target\ncafé,x\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 \(byte 18\)"):
        read_questions("prompts", str(tmp_path / "t.csv"))


LINES = [
    '{"id": 1, "prompt": "a", "completion":"2021-01-10"}',
    '{"id":1.0,"prompt":"\\u00e9","completion":"é", "more": null}',
    '{ "completion": "NaN", "prompt": "c"}',
]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_json_lines_are_written_byte_for_byte(tmp_path, ending):
    (tmp_path / "t.jsonl").write_bytes(("\ufeff" + ending.join(LINES)).encode())
    write_rows(str(tmp_path / "t.jsonl"), [2, 0, 1], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == "".join(LINES[i] + "\n" for i in (2, 0, 1)).encode()
    write_rows(str(tmp_path / "t.jsonl"), [1], tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (LINES[1] + "\n").encode()


def test_elements_of_an_array_are_written_on_a_line_each_and_otherwise_as_they_were(tmp_path):
    (tmp_path / "t.json").write_text('[\n  {\n    "id": 1.0,\n    "prompt": "a  \\n b"\n  },\n  {"id": 1e2, "prompt": "c"}\n]')
    write_rows(str(tmp_path / "t.json"), [0, 1], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == '{ "id": 1.0, "prompt": "a  \\n b" }\n{"id": 1e2, "prompt": "c"}\n'


def test_rows_of_arrays_by_column_are_read(tmp_path):
    (tmp_path / "t.json").write_text('{"prompt": ["a", "b"],\n "target": [1.0, 2]}')
    assert [(question.prompt, question.target) for question in read_questions("prompts", str(tmp_path / "t.json"))] == [("a", "1.0"), ("b", "2")]


def test_rows_of_csv_are_written_as_they_were_or_as_json_with_the_same_cells(tmp_path):
    body = ['0,"a, ""b""",007\r\n', '1,"c\nd",1.0\r\n', "2,e,\r\n"]
    (tmp_path / "t.csv").write_bytes(("\ufeff,prompt,completion\r\n" + "".join(body)).encode())
    source = str(tmp_path / "t.csv")
    write_rows(source, [1, 0], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b',prompt,completion\n1,"c\nd",1.0\n0,"a, ""b""",007\n'
    write_rows(source, [0, 2], tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"": "0", "prompt": 'a, "b"', "completion": "007"},
        {"": "2", "prompt": "e", "completion": ""},
    ]


def test_rows_of_parquet_keep_their_types(tmp_path):
    table = pa.table({"prompt": ["a", "b", "c"], "day": pa.array([1, 2, 3], pa.date32()), "x": pa.array([0.1, 0.2, None], pa.float32())})
    pq.write_table(table, tmp_path / "t.parquet")
    write_rows(str(tmp_path / "t.parquet"), [2, 0], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == table.take([2, 0]).to_pylist()


@given(st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.integers(), min_size=1), min_size=1))
def test_any_json_rows_are_read_back(rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if not any("\ud800" <= character <= "\udfff" for line in lines for character in line):
        assert list(JsonRows.from_text("\n".join(lines)).json_lines(range(len(rows)))) == [line.encode() for line in lines]
        assert list(JsonRows.from_text(json.dumps(rows, indent=1)).json_lines([0]))
    read = JsonRows.from_text("\n".join(map(json.dumps, rows)))
    assert [{name.strip() for name in row} for row in rows] == [set(row) for row in read.take(range(len(rows)))]


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2).filter(any), min_size=1))
def test_any_cells_of_csv_are_read_back(records):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *records])
    rows = CsvRows(text.getvalue())
    assert [[row["a"] or "", row["b"] or ""] for row in rows.take(range(len(rows)))] == records
