"""Questions with their content: what a spec names is read once, and answers elsewhere as it would have here."""

import contextlib
import gzip
import json
import pickle
import shutil
import subprocess
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import save

from raysp.blobs import Blob, blobs_from, parse_blob, read_bytes
from raysp.datasets import content, files
from raysp.datasets.content import portable
from raysp.datasets.sources import open_rows
from raysp.errors import UserError
from raysp.explorers.scores import load_scores
from raysp.lenses import build_game
from raysp.specs.explorers import ScreenOptions
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens, with_model
from raysp.specs.run import RunSpec, resolve

ROWS = [{"prompt": f"The number after {i} is", "completion": f" {i + 1}"} for i in range(12)]
PROMPTS = [
    {"prompt": "Mary and John went out, and John called", "target": " Mary", "foil": " John"},
    {"prompt": "A cat saw a", "target": " dog", "foil": " cat"},
]
PROMPT = "the film was never dull"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("model") / "tiny")


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def questions(folder, model):
    """A question for every field that may name a file."""
    (folder / "spans.json").write_text("[[0, 8], [9, 18]]")
    (folder / "scores.json").write_text("[1, 2, 3, 4, 5]")
    (folder / "references.txt").write_text("One prompt\nAnother prompt\n")
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    prompts, rows, queries = lines(folder / "p.jsonl", PROMPTS), lines(folder / "t.jsonl", ROWS[:8]), lines(folder / "q.jsonl", ROWS[8:])
    here = {"model": model, "dtype": "float32", "device": "cpu"}
    recipe = {"epochs": 1, "rank": 2, "adapted_layers": "last:1"}
    return {
        "spans": RunSpec(lens=FeatureLens(prompt=PROMPT, unit="spans", spans=str(folder / "spans.json"), target=" good", foil=" bad", **here)),
        "scores": RunSpec(
            lens=FeatureLens(prompt=PROMPT, target=" good", foil=" bad", **here), explorer=ScreenOptions(scores=str(folder / "scores.json"), budget=20)
        ),
        "prompts": RunSpec(lens=MechanisticLens(prompts=prompts, ablation="mean", references=str(folder / "references.txt"), **here)),
        "train": RunSpec(lens=DataLens(train=rows, queries=queries, **here, **recipe)),
        "saved": RunSpec(lens=DataLens(train=str(folder / "saved"), query_count=3, **here, **recipe)),
    }


KINDS = ("spans", "scores", "prompts", "train", "saved")
ELSEWHERE = """
import pickle, sys
from raysp.blobs import blobs_from
from raysp.lenses import build_game
from raysp.runs.run import start_explorer
for spec, content in pickle.load(sys.stdin.buffer):
    with blobs_from(content.get):
        info = build_game(spec.lens).info
        start_explorer(spec, info)
        print(info.fingerprint)
"""


def test_a_question_is_the_same_where_its_files_are_not(tmp_path, model):
    folder = tmp_path / "asker"
    folder.mkdir()
    asked = [resolve(spec) for spec in questions(folder, model).values()]
    here = [build_game(spec.lens).info.fingerprint for spec in asked]
    carried = [portable(spec) for spec in asked]
    shutil.rmtree(folder)
    (tmp_path / "node").mkdir()
    told = subprocess.run([sys.executable, "-c", ELSEWHERE], input=pickle.dumps(carried), capture_output=True, cwd=tmp_path / "node", check=False)
    assert told.returncode == 0, told.stderr.decode()
    assert told.stdout.decode().split() == here


@pytest.mark.parametrize("kind", KINDS)
def test_no_path_of_the_asker_is_left_but_the_models(tmp_path, model, kind):
    spec, found = portable(questions(tmp_path, model)[kind])
    named = {**spec.lens.files, **spec.lens.data_sets, **spec.explorer.files}
    blobs = {field: parse_blob(source) for field, source in named.items()}
    assert blobs
    assert {blob.digest for blob in blobs.values()} == found.keys()
    assert all(blob.path.startswith(str(tmp_path)) for blob in blobs.values())
    assert portable(spec)[0] == spec  # a question that was made portable stays as it is


def test_names_on_the_hub_and_corpora_travel_as_names():
    spec, found = portable(RunSpec(lens=DataLens(train="owner/set", queries="corpus:chatterbot:ai")))
    assert (spec.lens.train, spec.lens.queries, found) == ("hf:owner/set", "corpus:chatterbot:ai", {})


def test_a_compressed_file_travels_as_it_is(tmp_path):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    spec, found = portable(RunSpec(lens=DataLens(train=str(path))))
    assert list(found.values()) == [path.read_bytes()]
    with blobs_from(found.get):
        assert open_rows("train", spec.lens.train).cells("prompt") == [ROWS[0]["prompt"]]


def test_a_saved_folder_keeps_its_labels_and_what_it_was_made_of(tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    data.save_to_disk(tmp_path / "saved")
    spec, found = portable(RunSpec(lens=DataLens(train=str(tmp_path / "saved"))))
    with blobs_from(found.get):
        assert open_rows("train", spec.lens.train).cells("label") == ["good", "bad"]
    source = lines(tmp_path / "t.jsonl", [{"prompt": "p", "completion": f"202{i}-01-10"} for i in range(3)])
    datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(tmp_path / "cache")).save_to_disk(tmp_path / "made")
    spec, found = portable(RunSpec(lens=DataLens(train=str(tmp_path / "made"))))
    with blobs_from(found.get), pytest.raises(UserError, match="train: 'completion' holds times that were text in the JSON file"):
        open_rows("train", spec.lens.train).check("train", "completion")


@pytest.mark.parametrize(
    ("field", "name", "text", "said"),
    [
        ("train", "t.jsonl", '{"prompt": ', r"/t.jsonl' is not valid JSON \(line 1"),
        ("train", "t.csv", "a,b\n1,2,3\n", "/t.csv' has 3 cells in line 2"),
        ("train", "t.jsonl.gz", "no gzip", r"/t.jsonl.gz' cannot be read \(Not a gzipped file"),
    ],
)
def test_messages_about_content_name_the_file(tmp_path, field, name, text, said):
    (tmp_path / name).write_text(text)
    spec, found = portable(RunSpec(lens=DataLens(train=str(tmp_path / name))))
    with blobs_from(found.get), pytest.raises(UserError, match=f"{field}: .*{said}"):
        open_rows(field, spec.lens.train)


def test_messages_about_scores_and_spans_name_the_file(tmp_path, model):
    asked = questions(tmp_path, model)
    (tmp_path / "scores.json").write_text('["x"]')
    (tmp_path / "spans.json").write_text("[[0, 500]]")
    scores, content = portable(asked["scores"])
    with blobs_from(content.get), pytest.raises(UserError, match=r"scores: .*scores.json' cannot be read"):
        load_scores(scores.explorer.scores)
    with pytest.raises(UserError, match=r"scores: .*scores.json' cannot be read \(its content did not come with the question\)"):
        load_scores(scores.explorer.scores)


def test_a_file_that_is_missing_is_told_where_it_is_asked(tmp_path):
    with pytest.raises(UserError, match=r"train: .*nothing.jsonl' does not exist"):
        portable(RunSpec(lens=DataLens(train=str(tmp_path / "nothing.jsonl"))))
    with pytest.raises(UserError, match=r"spans: .*nothing.json' does not exist"):
        portable(RunSpec(lens=FeatureLens(prompt="a b", unit="spans", spans=str(tmp_path / "nothing.json"))))


def test_content_that_is_not_what_its_hash_says_is_refused(tmp_path):
    spec, found = portable(RunSpec(lens=DataLens(train=lines(tmp_path / "t.jsonl", ROWS))))
    with blobs_from(dict.fromkeys(found, b"{}").get), pytest.raises(UserError, match=r"train: .* has another hash"):
        open_rows("train", spec.lens.train)


def test_inner_lookups_come_first_and_the_others_are_still_asked(tmp_path):
    one, found = portable(RunSpec(lens=DataLens(train=lines(tmp_path / "t.jsonl", ROWS))))
    with blobs_from(found.get), blobs_from({}.get):
        assert read_bytes(one.lens.train) == next(iter(found.values()))
    with pytest.raises(OSError, match="did not come with the question"):
        read_bytes(one.lens.train)


def test_too_much_content_is_refused_before_it_travels_and_before_it_is_decompressed(tmp_path, monkeypatch):
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 100_000))
    monkeypatch.setattr(files, "MOST_BYTES", 50_000)
    spec, found = portable(RunSpec(lens=DataLens(train=str(path))))
    with blobs_from(found.get), pytest.raises(UserError, match=r"t.jsonl.gz' has more than 0 MiB when it is decompressed"):
        open_rows("train", spec.lens.train)
    monkeypatch.setattr(content, "MOST_BYTES", 50)
    with pytest.raises(UserError, match=r"train: .*t.jsonl.gz' has 0 MiB, and at most 0 travel with a question"):
        portable(RunSpec(lens=DataLens(train=str(path))))


def test_parquet_cannot_name_a_file_of_the_machine_that_reads_it(tmp_path):
    (tmp_path / "secret.txt").write_text("one\ntwo\n")
    feature = {"_type": "ClassLabel", "names_file": str(tmp_path / "secret.txt"), "names": None}
    features = {"prompt": {"_type": "Value", "dtype": "string"}, "completion": feature}
    table = pa.table({"prompt": ["a"], "completion": [1]}).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "t.parquet")
    assert [row["completion"] for row in open_rows("train", str(tmp_path / "t.parquet")).take([0])] == [1]


NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': ("


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.parquet", "t.jsonl.gz", "saved/", "s.json", "s.csv", "s.npy", "s.parquet"])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40) | st.sampled_from([b"null", b"[null]", b"[" * 5000, b"{" * 5000, b'{"a":' * 2000, b"\xff\xfe", b"1e999", NPY]))
def test_whatever_content_arrives_is_rows_or_scores_or_one_line(name, data):
    blob = Blob.of(f"/home/ann/{name}", data)
    with blobs_from({blob.digest: data}.get), contextlib.suppress(UserError):
        if name.startswith("s."):
            assert load_scores(str(blob)).ndim == 1
        else:
            rows = open_rows("train", str(blob))
            assert len(list(rows.take(range(len(rows))))) == len(rows)


# ---- model folders


def test_a_model_folder_is_checked_by_its_hash(tmp_path):
    folder = tmp_path / "model"
    save("llama", folder)
    lens = FeatureLens(model=str(folder), prompt=PROMPT, target=" good", foil=" bad", dtype="float32", device="cpu")
    spec, _ = portable(RunSpec(lens=lens))
    assert build_game(spec.lens).info.fingerprint == build_game(lens).info.fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(UserError, match=r"model: .*model' is another model on this node .* than where it was asked about"):
        build_game(spec.lens)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"model: .*model' is not there on this node"):
        build_game(spec.lens)


def test_another_model_takes_no_hash_over():
    lens = FeatureLens(model="/a", model_hash="0" * 64)
    assert (with_model(lens, "b").model, with_model(lens, "b").model_hash) == ("b", None)


def test_a_relative_name_is_one_on_the_hub(tmp_path, monkeypatch):
    save("llama", tmp_path / "models" / "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="model: 'models/tiny' is n"):
        build_game(FeatureLens(model="models/tiny", prompt=PROMPT))
    resolved = resolve(RunSpec(lens=FeatureLens(model="models/tiny", prompt=PROMPT, target=" good")))
    assert build_game(resolved.lens).info.n == 5
