"""Checking that fast scoring agrees with the model costs little beside what is measured, and misses nothing that shows on long inputs only. Float32."""

from collections import OrderedDict
from contextlib import contextmanager
from weakref import WeakValueDictionary

import numpy as np
import pytest
from tiny_models import save

from raysp import Exhaustive, RunSpec, run
from raysp.lenses import build_game
from raysp.lenses.self_check import PIECE
from raysp.models.resident import resident
from raysp.specs.lenses import FeatureLens, MechanisticLens
from raysp.store import Store

PARAGRAPH = "Her acting never fails. The film was long, but the ending was good! "
PROMPT = "\n\n".join(f"{number}. {PARAGRAPH * 12}" for number in range(6))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"llama": save("llama", folder / "llama", context=4096), "window": save("window", folder / "window", context=4096, window=3 * PIECE)}


@contextmanager
def counted(model):
    """Counts the tokens whose embeddings a model looks up."""
    tokens = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0].numel()))
    try:
        yield tokens
    finally:
        handle.remove()


def feature(folder, **options):
    return FeatureLens(**{"model": folder, "dtype": "float32", "device": "cpu", "prompt": PROMPT, "unit": "paragraph", "value": "logprob", **options})


@pytest.mark.parametrize("ablation", ["remove", "attention"])
def test_a_game_on_a_long_prompt_is_built_without_running_the_model_on_all_of_it(folders, ablation):
    lens = feature(folders["llama"], target=" not", ablation=ablation)
    with counted(resident(lens).loaded.model) as building:
        game = build_game(lens)
    length = len(game.parts.source.contexts(np.ones((1, game.n), bool))[0][0])
    assert length > 10 * PIECE
    assert sum(building) <= 8 * PIECE
    with counted(game.model.loaded.model) as measuring:
        whole = game.measure(np.ones((1, game.n), bool))
    assert whole.tokens == length
    assert sum(measuring) <= 2 * length + 8  # the batch, and one single forward pass that it is compared with
    one_gone = ~np.eye(game.n, dtype=bool)
    game.measure(one_gone)  # the longest that skip positions, if the ablation makes any
    with counted(game.model.loaded.model) as more:
        game.measure(one_gone[:5] & one_gone[1:])
    assert max(more) < length  # nothing longer than what was checked: no single forward pass


def test_what_shows_on_long_inputs_only_is_found_when_they_are_measured(folders):
    """An attention window of three pieces: packed scoring agrees on a piece and not on the prompt."""
    game = build_game(feature(folders["window"], target=" not"))
    assert game.method == "packed"
    masks = np.concatenate([np.ones((1, game.n), bool), np.random.default_rng(1).random((6, game.n)) < 0.5])
    values = game.evaluate(masks)
    assert game.method != "packed"
    inputs = game.answers.inputs(game.parts.source.contexts(masks))
    np.testing.assert_allclose(values, game.answers.values(game.model.score(inputs, "alone")), atol=1e-4)


def test_a_run_notes_that_its_first_batch_fell_back_to_a_slower_scoring(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("raysp.models.resident._residents", OrderedDict())  # a model that has checked no long input yet
    monkeypatch.setattr("raysp.models.resident._held", WeakValueDictionary())
    lens = feature(folders["window"], target=" not", prompt="\n\n".join(PROMPT.split("\n\n")[:3]))
    spec = RunSpec(lens=lens, explorer=Exhaustive(), local=True, store=str(tmp_path / "s.duckdb"))
    run_id = run(spec).run_id
    with Store.read(tmp_path / "s.duckdb") as store:
        notes = store.sql("SELECT message FROM events WHERE kind = 'note' ORDER BY time")["message"].to_pylist()
        assert notes[0].endswith("packed scoring")  # as the game was built
        assert len([note for note in notes if note.startswith("packed scoring is not used: it is ")]) == 1
        assert store.run_row(run_id)["status"] == "done"


def test_the_blocks_of_a_long_prompt_are_checked_on_a_piece_and_once_as_a_whole(folders):
    lens = MechanisticLens(model=folders["llama"], dtype="float32", device="cpu", prompt=PROMPT, target=" not", components="mlp")
    with counted(resident(lens).loaded.model) as building:
        game = build_game(lens)
    length = len(game.reading.contexts[0][0])
    assert sum(building) <= 3 * length + 8 * PIECE  # the entry of the blocks, what they are called with, and the model itself
