"""Rows of three shapes become examples and queries; columns are found by name; errors name the row."""

import json

import datasets
import pytest

from raysp.datasets.training_sets import parse_columns, read_training_set
from raysp.errors import UserError
from raysp.specs.lenses import DataLens

PAIRS = [{"prompt": f"question {i}", "completion": f"answer {i}", "topic": "even" if i % 2 == 0 else "odd"} for i in range(20)]
LABELLED = [{"text": f"film {i}", "label": "good" if i % 4 else "bad"} for i in range(20)]
TALKS = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": f"Hello {i}"}] for i in range(8)]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    return write(tmp_path / "pairs.jsonl", PAIRS)


def read(train, **options):
    return read_training_set(DataLens(train=train, **options))


def texts(found):
    return [(sample.prompt, sample.completion) for sample in found.samples]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "folder", "folder of splits"])
def test_every_kind_of_source_reads_the_same(tmp_path, kind):
    data = datasets.Dataset.from_list(PAIRS)
    path = tmp_path / ("saved" if kind.startswith("folder") else f"pairs.{kind}")
    if kind == "folder of splits":
        datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(path)
    else:
        {"jsonl": data.to_json, "csv": data.to_csv, "parquet": data.to_parquet, "folder": data.save_to_disk}[kind](path)
    queries = write(tmp_path / "queries.jsonl", [{"prompt": "x", "completion": "y"}])
    training, asked = read(str(path), queries=queries)
    assert texts(training) == [(row["prompt"], row["completion"]) for row in PAIRS]
    assert texts(asked) == [("x", "y")]


@pytest.mark.parametrize(("prompt", "completion"), [("question", "answer"), ("instruction", "response"), ("input", "output")])
def test_columns_are_found_by_their_common_names_and_said(tmp_path, prompt, completion):
    path = write(tmp_path / "named.jsonl", [{"id": i, prompt: f"q{i}", completion: i} for i in range(8)])
    training, _ = read(path, query_count=1)
    assert set(texts(training)) < {(f"q{i}", f"{i}") for i in range(8)}
    assert training.notes == (f"train: prompt is column {prompt}, completion is column {completion}",)


def test_a_column_map_goes_before_names(tmp_path):
    path = write(tmp_path / "odd.jsonl", [{"prompt": "not this", "asked": f"q{i}", "said": f"a{i}"} for i in range(8)])
    training, _ = read(path, columns="prompt=asked, completion=said", query_count=1)
    assert training.samples[0].prompt.startswith("q")


def test_a_map_says_which_shape_a_row_has(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "text": f"t{i}", "kind": "ab"[i % 2]} for i in range(8)]
    training, _ = read(write(tmp_path / "both.jsonl", rows), columns="label=kind", query_count=2)
    assert training.labels == ("a", "b")
    assert {sample.prompt[0] for sample in training.samples} == {"t"}


def test_the_last_message_of_the_assistant_is_the_completion(tmp_path):
    training, _ = read(write(tmp_path / "talks.jsonl", [{"messages": talk} for talk in TALKS]), query_count=1)
    sample = training.samples[0]
    assert sample.completion == f"Hello {sample.row - 1}"
    assert sample.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Hi {sample.row - 1}"})
    assert sample.prompt == f"system: Be brief.\nuser: Hi {sample.row - 1}"


def test_conversations_of_another_format_are_read_and_what_follows_the_answer_is_left_out(tmp_path):
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Thanks"}]
    training, _ = read(write(tmp_path / "talks.jsonl", [{"conversations": talk}] * 4), query_count=1)
    assert (training.samples[0].prompt, training.samples[0].completion) == ("Hi", "Hello")
    assert training.samples[0].messages == ({"role": "user", "content": "Hi"},)


def test_labels_by_number_are_named_as_the_data_set_names_them(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    data = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(10)], "label": [i % 2 for i in range(10)]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    training, queries = read(str(tmp_path / "saved"), query_count=2)
    assert training.labels == queries.labels == ("neg", "pos")
    assert {(sample.prompt, sample.completion, sample.label) for sample in training.samples} < {
        (f"t{i}", name, name) for i in range(10) for name in ("neg", "pos")
    }


def test_drawn_queries_are_taken_out_of_the_training_set(pairs):
    training, queries = read(pairs, query_count=6)
    assert len(queries.samples) == 6
    assert sorted(texts(training) + texts(queries)) == sorted((row["prompt"], row["completion"]) for row in PAIRS)
    assert queries.warnings == ()


@pytest.mark.parametrize(("rows", "options", "key"), [(PAIRS, {"group_by": "topic"}, "topic"), (LABELLED, {}, "label")])
def test_drawn_queries_come_evenly_from_groups_or_labels(tmp_path, rows, options, key):
    _, queries = read(write(tmp_path / "rows.jsonl", rows), query_count=4, **options)
    values = [sample.extra[key] for sample in queries.samples]
    assert sorted(values.count(value) for value in set(values)) == [2, 2]


def test_a_rare_group_keeps_an_example_to_train_on(tmp_path):
    rows = [{**row, "topic": "rare" if i < 2 else "common"} for i, row in enumerate(PAIRS)]
    training, _ = read(write(tmp_path / "rows.jsonl", rows), query_count=10, group_by="topic")
    assert "rare" in {sample.extra["topic"] for sample in training.samples}


def test_given_queries_are_all_asked_unless_a_number_is_given(tmp_path, pairs):
    path = write(tmp_path / "queries.jsonl", [{"question": f"w{i}", "answer": "z", "foil": "v" if i else None} for i in range(30)])
    _, queries = read(pairs, queries=path)
    assert [sample.prompt for sample in queries.samples] == [f"w{i}" for i in range(30)]
    assert [sample.foil for sample in queries.samples] == [None, *["v"] * 29]
    _, fewer = read(pairs, queries=path, query_count=5)
    assert len(fewer.samples) == 5
    assert fewer.notes[-1] == "5 of 30 queries are drawn"


def test_a_query_that_is_in_the_training_set_is_warned_of(tmp_path, pairs):
    path = write(tmp_path / "queries.jsonl", [{"prompt": "new", "completion": "x"}, {"prompt": " question 4 ", "completion": "answer 4"}])
    _, queries = read(pairs, queries=path)
    assert queries.warnings == ("1 of 2 queries are also in the training set (query row 2 is row 5); those rows will probably have the largest effects",)


def test_a_label_that_training_does_not_know_is_warned_of(tmp_path):
    train = write(tmp_path / "train.jsonl", LABELLED)
    _, queries = read(train, queries=write(tmp_path / "queries.jsonl", [{"text": "film", "label": "fine"}]))
    assert "fine" in queries.warnings[0]
    assert queries.labels == ("bad", "fine", "good")


def test_a_limit_draws_at_random_by_seed(pairs):
    drawn = [texts(read(pairs, query_count=2, limit=5, training_seed=seed)[0]) for seed in (0, 0, 1)]
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != [(row["prompt"], row["completion"]) for row in PAIRS[:5]]


def test_the_installed_conversations_come_with_their_topics():
    training, queries = read("corpus:chatterbot:history,science", group_by="topic")
    found = [sample.extra["topic"] for sample in (*training.samples, *queries.samples)]
    assert (found.count("history"), found.count("science")) == (8, 28)
    assert ("who invented the lightbulb", "thomas edison.") in texts(training) + texts(queries)


def test_the_installed_reviews_are_fresh_or_rotten():
    training, queries = read("corpus:reviews", limit=50)
    assert training.labels == ("fresh", "rotten")
    assert len(training.samples) == 50
    assert [sample.label for sample in queries.samples].count("fresh") == 4
    assert set(training.samples[0].extra) == {"text", "label", "movie_name"}


MISTAKES = {
    "no training set": (None, {"train": ""}, "train", "is missing"),
    "a missing file": (None, {"train": "none.jsonl"}, "train", "does not exist"),
    "an unknown corpus": (None, {"train": "corpus:plays"}, "train", "corpus:chatterbot or corpus:reviews"),
    "an unknown topic": (None, {"train": "corpus:chatterbot:alchemy"}, "train", "its topics are ai, botprofile"),
    "parts of reviews": (None, {"train": "corpus:reviews:fresh"}, "train", "has no parts"),
    "an empty file": ([], {}, "train", "has no rows"),
    "no column for an example": ([{"a": "x", "b": "y"}] * 4, {}, "train", "its columns are a, b"),
    "no column for the completion": ([{"prompt": "x", "b": "y"}] * 4, {}, "train", "has no column for completion; its columns are prompt, b"),
    "a mapped column that is not there": (PAIRS, {"columns": "prompt=ask"}, "columns", "its columns are prompt, completion, topic"),
    "a map of an unknown role": (PAIRS, {"columns": "asked=prompt"}, "columns", "'asked=prompt'"),
    "a map without a column": (PAIRS, {"columns": "prompt"}, "columns", "ROLE=COLUMN"),
    "an empty completion": ([*PAIRS[:2], {"prompt": "x", "completion": " "}], {"query_count": 1}, "train row 3, completion", "is empty"),
    "an empty label": ([*LABELLED, {"text": "x", "label": None}], {"query_count": 1}, "train row 21, label", "is empty"),
    "a completion that is no text": ([{"prompt": "x", "completion": ["y"]}] * 4, {}, "train row 1, completion", "is not text (list)"),
    "one example": (PAIRS[:1], {}, "train", "leaves 0 of 1 examples"),
    "too many queries": (PAIRS, {"query_count": 19}, "query_count", "leaves 1 of 20 examples"),
    "one label": ([{"text": f"t{i}", "label": "good"} for i in range(9)], {}, "train", "has only one label, 'good'"),
    "nobody answers": ([{"messages": [{"role": "user", "content": "x"}]}] * 4, {}, "train row 1, messages", "no message of the assistant"),
    "the answer comes first": ([{"messages": [{"role": "assistant", "content": "x"}]}] * 4, {}, "train row 1, messages", "begins with the answer"),
    "an empty answer": ([{"messages": [*TALKS[0][:2], {"role": "assistant", "content": ""}]}] * 4, {}, "train row 1, messages", "says nothing"),
    "a message without content": ([{"messages": [{"role": "user"}]}] * 4, {}, "train row 1, messages", "is not a message"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_field_and_row(tmp_path, mistake):
    rows, options, field, words = MISTAKES[mistake]
    train = {} if rows is None else {"train": write(tmp_path / "rows.jsonl", rows)}
    # Where a row is at fault, it must not depend on the draw whether it is read as an example or as a query.
    with pytest.raises(UserError) as caught:
        read_training_set(DataLens(**train, **options))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line_and_nothing_is_logged(tmp_path, capfd):
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{broken')
    with pytest.raises(UserError, match=r"train: .*broken.* is not valid JSON \(line 2, column 2"):
        read(str(tmp_path / "broken.jsonl"))
    assert capfd.readouterr() == ("", "")


def test_one_example_beside_given_queries_is_too_few(tmp_path):
    train, queries = (write(tmp_path / name, PAIRS[:1]) for name in ("train.jsonl", "queries.jsonl"))
    with pytest.raises(UserError, match="has 1 example; give at least two"):
        read(train, queries=queries)


def test_a_map_is_a_list_of_roles_and_columns():
    assert parse_columns(None) == parse_columns(" ") == {}
    assert parse_columns("prompt=a, foil = b,") == {"prompt": "a", "foil": "b"}


@pytest.mark.parametrize("tags", [["a"], {"b": 1}])
def test_queries_are_drawn_by_groups_of_any_type(tmp_path, tags):
    rows = [row | {"tags": tags if i % 2 else type(tags)()} for i, row in enumerate(PAIRS)]
    training, asked = read(write(tmp_path / "tags.jsonl", rows), group_by="tags", query_count=4)
    assert (len(training.samples), len(asked.samples)) == (16, 4)


@pytest.mark.parametrize("message", ["hello", 3, {"role": "user", "content": "Hi"}])
def test_what_is_no_list_of_messages_is_refused(tmp_path, message):
    path = write(tmp_path / "talks.jsonl", [{"talk": message} for _ in range(8)])
    with pytest.raises(UserError, match=r"row \d+, talk.*is not a list of messages"):
        read(path, columns="messages=talk", query_count=1)


@pytest.mark.parametrize(("asked", "context"), [("instruction", "input"), ("instruction", "context"), ("question", "context"), ("prompt", "input")])
def test_the_input_or_context_of_a_prompt_is_part_of_it(tmp_path, asked, context):
    rows = [{asked: f"Do {i}", context: "this" if i else "", "output": "done"} for i in range(8)]
    path = write(tmp_path / "alpaca.jsonl", rows)
    training, _ = read(path, queries=path)
    assert [sample.prompt for sample in training.samples] == ["Do 0", *(f"Do {i}\n\nthis" for i in range(1, 8))]
    assert training.notes == (f"train: prompt is column {asked}, completion is column output, context is column {context}",)


def test_columns_that_could_be_part_of_a_prompt_and_are_not_used_are_named_once(tmp_path):
    rows = [{"instruction": f"Do {i}", "input": ["this"], "context": "that", "system": "Obey.", "history": [], "output": "done", "id": i} for i in range(8)]
    path = write(tmp_path / "alpaca.jsonl", rows)
    training, queries = read(path, query_count=1, columns="prompt=instruction")
    assert training.notes == ("train: prompt is column instruction, completion is column output; not used: input, context, system, history",)
    assert not any("not used" in note for note in queries.notes)
    assert read(path, query_count=1, columns="prompt=instruction,context=context")[0].samples[0].prompt.endswith("\n\nthat")


CALL = {"name": "weather", "arguments": {"city": "Oslo", "days": 2, "scale": 1.0}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]
CALLED = {"type": "function", "function": CALL}
ANSWERED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALLED]},
    {"role": "tool", "content": "rain"},
]
SHAREGPT = [
    {"from": "human", "value": "Weather?"},
    {"from": "function_call", "value": json.dumps(CALL)},
    {"from": "observation", "value": "rain"},
    {"from": "gpt", "value": "Wet."},
]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*ANSWERED, {"role": "assistant", "content": "Wet."}], "tools": TOOLS},
        {"messages": [*ANSWERED, {"role": "assistant", "content": "Wet.", "tool_calls": None, "name": None}], "tools": json.dumps(TOOLS)},
        {"messages": json.dumps([*ANSWERED, {"role": "assistant", "content": "Wet."}]), "tools": [json.dumps(tool) for tool in TOOLS]},
        {"conversations": SHAREGPT, "system": "Be brief.", "tools": json.dumps(TOOLS)},
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_tool_calls_tools_and_system_prompts_are_kept(tmp_path, row, name):
    path = str(tmp_path / name)
    if name == "rows.parquet":
        datasets.Dataset.from_list([row] * 3).to_parquet(path)
    else:
        write(tmp_path / name, [row] * 3)
    training, _ = read(path, queries=path)
    sample = training.samples[0]
    assert list(sample.messages) == ANSWERED
    assert (list(sample.tools), sample.completion, sample.answer) == (TOOLS, "Wet.", None)
    assert not any("not used" in note for note in training.notes)
    assert sample.prompt.splitlines()[2].startswith("assistant: [{")


@pytest.mark.parametrize("content", ["", None])
def test_a_tool_call_may_be_the_answer(tmp_path, content):
    talk = [*ANSWERED[:2], {"role": "assistant", "content": content, "tool_calls": [CALLED]}]
    path = write(tmp_path / "rows.jsonl", [{"messages": talk}] * 3)
    training, _ = read(path, queries=path)
    assert training.samples[0].answer == talk[-1]
    assert json.loads(training.samples[0].completion) == [CALLED]


def test_a_system_prompt_alone_is_not_a_question(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"conversations": SHAREGPT[1:2], "system": "Be brief."}] * 3)
    with pytest.raises(UserError, match="begins with the answer"):
        read(path, queries=path)


def test_a_seed_that_generators_do_not_take_is_refused():
    with pytest.raises(ValueError, match="training_seed"):
        DataLens(train="unread", training_seed=2**33)
