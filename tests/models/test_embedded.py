"""The embedded model, end to end: from the package's GGUF file to the figures that are known of it."""

import itertools
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save

from raysp.lenses import build_game
from raysp.models import embedded
from raysp.specs.lenses import FeatureLens

REVIEW = {"template": "Review: {prompt}\nSentiment:", "target": " positive", "foil": " negative", "value": "logit_diff", "dtype": "float32"}

pytestmark = pytest.mark.skipif(embedded.embedded_gguf() is None, reason="the package with the embedded model is not installed")


@pytest.fixture(scope="session")
def impress():
    """The game of the README, and its values over all masks in the order of counting."""
    game = build_game(FeatureLens(prompt="Her acting never fails to impress", device="cpu", **REVIEW))
    masks = np.array(list(itertools.product([False, True], repeat=game.n)))
    return game, masks, game.evaluate(masks)


def banzhaf(masks, values, members):
    signs = np.where(masks[:, members], 1, -1).prod(axis=1)
    return float((signs * values).sum() / 2 ** (masks.shape[1] - len(members)))


def test_the_known_values(impress):
    game, _, values = impress
    assert [c.label for c in game.components] == ["Her", "acting", "never", "fails", "to", "impress"]
    assert values[-1] == pytest.approx(2.22, abs=0.005)
    assert values[0] == pytest.approx(0.16, abs=0.005)


@pytest.mark.parametrize(("members", "value"), [([2, 3], 3.79), ([1, 2, 3], 2.21), ([2, 3, 5], 1.16), ([2], 0.58)])
def test_the_known_interactions(impress, members, value):
    _, masks, values = impress
    assert banzhaf(masks, values, members) == pytest.approx(value, abs=0.01)


def test_packed_equals_alone(impress):
    game, masks, values = impress
    some = masks[::9]
    inputs = game.answers.inputs(game.parts.source.contexts(some))
    assert np.abs(game.answers.values(game.model.score(inputs, "alone")) - values[::9]).max() < 1e-4
    assert np.abs(game.answers.values(game.model.score(inputs, "padded")) - values[::9]).max() < 1e-4


def test_a_read_only_home_does_not_keep_the_model_from_being_found(tmp_path, monkeypatch):
    title = embedded.dequantised(embedded.embedded_gguf(), embedded.NAME).name
    made = tmp_path / f"raysp-{os.getuid()}" / "models" / title
    made.mkdir(parents=True)
    made.parent.parent.chmod(0o700)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSP_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert embedded.dequantised(embedded.embedded_gguf(), embedded.NAME) == made


def test_it_talks(impress):
    game = build_game(FeatureLens(prompt="What is the capital of France?", chat=True, dtype="float32", device="cpu", max_new_tokens=12))
    assert "Paris" in game.answers.target
    assert game.model is impress[0].model


def test_a_missing_space_is_remarked_upon(impress):
    game = build_game(FeatureLens(prompt="Her acting never fails", device="cpu", **{**REVIEW, "target": "positive", "foil": None, "value": None}))
    assert any("' positive'" in note for note in game.info.notes)


def _dequantise(source, results):
    def convert(_, folder):
        with (source.parent / "conversions").open("a") as file:
            file.write("x")
        for path in source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    embedded._convert = convert
    results.put(str(embedded.dequantised(source / "model.safetensors", "twice")))


def test_two_processes_make_one_folder(tmp_path, monkeypatch):
    """With a small file in place of the packaged one: the conversion is a copy, the locking and renaming are real."""
    source, home = tmp_path / "tiny", tmp_path / "home"
    monkeypatch.setenv("RAYSP_HOME", str(home))
    home.mkdir()
    save("llama", source)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may wait for a lock that nobody gives back
    results = context.Queue()
    workers = [context.Process(target=_dequantise, args=(source, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    folders = {results.get(timeout=200) for _ in workers}
    for worker in workers:
        worker.join()
    (folder,) = folders
    assert (tmp_path / "conversions").read_text() == "x"
    assert not [path for path in (home / "models").iterdir() if path.name.startswith(".twice")]
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(path.name for path in source.iterdir())
