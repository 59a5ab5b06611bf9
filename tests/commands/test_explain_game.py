"""`raysp explain-game`: a user's own evaluations, and the errors for malformed ones."""

import csv
import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from spectral.known_games import additive, and_or, parity

from raysp.explorers import ProxySPEX, fit_singles
from raysp.runs.measurements import held_out_rows, read_measurements
from raysp.spectral.walsh import all_masks

LABELS = ["the", "battery", "lasts", "long", "but", "the", "screen", "is", "hardly", "bright"]


def masks_of(rows=300, n=10, seed=0, keep=0.5):
    return np.random.default_rng(seed).random((rows, n)) < keep


@pytest.fixture
def data(tmp_path):
    """Writes arrays to a file and gives its path."""

    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


@pytest.fixture
def told(cli):
    """Runs the command; gives its exit code, stdout and stderr."""
    return lambda *arguments: cli("explain-game", *map(str, arguments))


def test_a_person_reads_the_answer(data, told):
    masks = masks_of()
    code, out, err = told(data(masks=masks, values=and_or(masks), labels=LABELS), "--top", 4, "--subset", 2)
    assert (code, err) == (0, "")
    assert "300 evaluations of 10 components" in out
    assert "Held-out R²" in out
    assert "single effects alone" in out
    assert "the × battery" in out
    assert "lasts × long" in out
    assert "yes" in out
    assert "According to the surrogate, removing" in out
    assert "\x1b" not in out


def test_json_is_one_object_with_honest_scores(data, told):
    masks = masks_of()
    values = and_or(masks) + np.random.default_rng(1).normal(size=300) * 0.1
    path = data(masks=masks.astype(int), values=values, labels=LABELS)
    _, out, _ = told(path, "--json", "--subset", 2, "--seed", 3)
    answer = json.loads(out)
    assert answer["rows"] == answer["fitted"] + answer["held_out"] == 300
    assert {tuple(row["components"]) for row in answer["interactions"] if row["significant"]} >= {(0, 1), (2, 3)}
    assert answer["singles"][0]["label"] in LABELS
    assert answer["subset"]["exact"]
    assert len(answer["subset"]["labels"]) == 2
    held = held_out_rows(read_measurements(path), 0.2, 3)
    model = ProxySPEX(random_state=3).fit(masks[~held], values[~held])
    assert answer["r2"] == pytest.approx(model.score(masks[held], values[held]))
    singles = fit_singles(masks[~held], values[~held], 3).predict(masks[held])
    assert answer["r2_singles"] == pytest.approx(1 - np.sum((values[held] - singles) ** 2) / np.sum((values[held] - values[held].mean()) ** 2))
    assert answer["r2"] > answer["r2_singles"] + 0.05


def test_where_interactions_do_not_help_it_says_so(data, told):
    masks = masks_of()
    values = additive(masks) + np.random.default_rng(0).normal(size=300)
    _, out, _ = told(data(masks=masks, values=values))
    assert "Interactions do not help" in out


def test_a_peak_is_warned_of(data, told):
    masks = masks_of(400, 14)
    _, out, _ = told(data(masks=masks, values=parity(masks) + np.random.default_rng(0).normal(size=400)))
    assert "spex" in out


def test_small_data_is_cross_validated_and_complete_data_exact(data, told):
    masks = masks_of(60)
    _, out, _ = told(data(masks=masks, values=and_or(masks)), "--json")
    answer = json.loads(out)
    assert (answer["held_out"], answer["r2"]) == (0, None)
    assert any("No rows were held out" in sentence for sentence in answer["sentences"])
    every = all_masks(8)
    _, out, _ = told(data(masks=every, values=and_or(every)), "--json")
    answer = json.loads(out)
    assert answer["held_out"] == 0
    assert any("exact" in sentence for sentence in answer["sentences"])


def test_masks_that_keep_most_are_explained_as_such(data, told):
    masks = masks_of(n=14, keep=0.85)
    code, out, _ = told(data(masks=masks, values=2.0 * masks[:, 0] + (masks[:, 1] & masks[:, 2])), "--json")
    found = json.loads(out)
    assert code == 0
    assert any("of the components on average" in sentence for sentence in found["sentences"])
    assert {row["index"] for row in found["interactions"]} == {"wbii"}
    assert found["r2"] > 0.9


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_the_whole_table_is_written(data, told, tmp_path, ending):
    masks = masks_of()
    output = tmp_path / f"table.{ending}"
    code, out, _ = told(data(masks=masks, values=and_or(masks), labels=LABELS), "-o", output, "--top", 1, "--index", "fsii", "--max-order", 2)
    assert code == 0
    if ending == "csv":
        rows = list(csv.DictReader(io.StringIO(output.read_text())))
    else:
        rows = json.loads(output.read_text()) if ending == "json" else pq.read_table(output).to_pylist()
    assert f"{len(rows)} rows" in out
    assert {int(row["order"]) for row in rows} == {1, 2}
    assert {row["index"] for row in rows} == {"fsii"}
    assert "the × battery" in {row["labels"] for row in rows}


@pytest.mark.parametrize("index", ["sv", "additivity", "mobius"])
def test_every_kind_of_index_is_shown(data, told, index):
    masks = masks_of(120)
    code, out, _ = told(data(masks=masks, values=and_or(masks)), "--index", index)
    assert code == 0
    assert index in out


def test_the_same_masks_are_never_on_both_sides(data):
    masks = np.repeat(masks_of(100, 20), 3, axis=0)
    measured = read_measurements(data(masks=masks, values=np.arange(300.0)))
    held = held_out_rows(measured, 0.3, 0)
    assert held.sum() == 90
    assert not {row.tobytes() for row in masks[held]} & {row.tobytes() for row in masks[~held]}


def test_neither_model_nor_ray_is_needed(data):
    masks = masks_of(100)
    path = data(masks=masks, values=and_or(masks))
    code = f"import sys\nfrom raysp.cli import main\ntry: main(['explain-game', {path!r}])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'ray', 'transformers', 'datasets'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


GOOD = {"masks": masks_of(20, 3), "values": np.arange(20.0)}

MISTAKES = [
    ({"masks": masks_of(250, 8), "values": np.arange(250.0)}, ["--heldout", "0.99"], ["heldout: 0.99 leaves", "rows to fit"]),
    ({"masks": GOOD["masks"]}, [], ["no array 'values'", "only masks"]),
    ({"values": GOOD["values"], "extra": np.ones(2)}, [], ["no array 'masks'", "extra, values"]),
    ({**GOOD, "values": np.arange(19.0)}, [], ["(19,)", "(20, 3)"]),
    ({**GOOD, "values": np.ones((20, 1))}, [], ["values", "(20, 1)"]),
    ({**GOOD, "masks": np.ones(20)}, [], ["masks", "(20,)"]),
    ({**GOOD, "masks": np.ones((20, 1), dtype=bool)}, [], ["(20, 1)", "at least 2 components"]),
    ({"masks": GOOD["masks"][:3], "values": np.arange(3.0)}, [], ["(3, 3)", "at least 8"]),
    ({**GOOD, "masks": GOOD["masks"] * 2}, [], ["neither 0 nor 1", "first 2"]),
    ({**GOOD, "masks": np.full((20, 3), np.nan)}, [], ["60 entries", "neither 0 nor 1"]),
    ({**GOOD, "masks": np.full((20, 3), "a")}, [], ["masks", "<U1"]),
    ({**GOOD, "values": np.array([np.nan, np.inf, *range(18)])}, [], ["2 of 20", "NaN"]),
    ({**GOOD, "values": np.array(["a"] * 20)}, [], ["values", "type <U1"]),
    ({**GOOD, "labels": np.array(["a", "b"])}, [], ["labels", "(2,)", "(20, 3)"]),
    ({**GOOD, "labels": np.array(["a", None, 3], dtype=object)}, [], ["labels", "Python objects"]),
    (GOOD, ["--index", "nonsense"], ["index", "nonsense", "fsii"]),
    (GOOD, ["--proxy", "magic"], ["proxy", "magic", "trees"]),
    (GOOD, ["--max-order", "0"], ["max_order", "0"]),
    (GOOD, ["--seed", "-1"], ["seed", "-1"]),
    (GOOD, ["--heldout", "1"], ["heldout", "1"]),
    (GOOD, ["--top", "0"], ["top", "0"]),
    (GOOD, ["--subset", "4"], ["subset", "4", "1 to 3"]),
    (GOOD, ["-o", "table.xlsx"], ["output", "table.xlsx", ".parquet"]),
    (GOOD, ["-o", "nowhere/table.csv"], ["output", "nowhere", "folder"]),
]


@pytest.mark.parametrize(("arrays", "options", "parts"), MISTAKES, ids=[" ".join(parts) for _, _, parts in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(data, told, arrays, options, parts):
    code, out, err = told(data(**arrays), *options)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    for part in parts:
        assert part in err


def test_a_file_that_is_no_npz_is_refused_and_a_pickle_never_read(tmp_path, told):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "text.npz").write_text("masks, values")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "one.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("letter.txt", "Dear Ann")
    expected = {"missing.npz": "does not exist", "text.npz": "not an npz", "empty.npz": "not an npz", "pickle.npz": "not an npz", "cut.npz": "not an npz"}
    for name, words in (expected | {"one.npy": "a single unnamed array", "other.npz": "no array 'masks'"}).items():
        code, out, err = told(tmp_path / name)
        assert (code, out) == (2, ""), name
        assert len(err.strip().splitlines()) == 1
        assert words in err, name
    assert not (tmp_path / "sprung").exists()


def test_a_component_without_a_label_has_its_number(data, told):
    masks = masks_of(60, 3)
    code, out, _ = told(data(masks=masks, values=masks @ [1.0, 2.0, 3.0], labels=np.array(["", "a", "b"])))
    assert code == 0
    assert "x0 " in out
