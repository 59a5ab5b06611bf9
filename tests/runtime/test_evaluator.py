"""An evaluator outside Ray: it measures the game that was described, or raises an error that states why it cannot."""

import gc
import json
import pickle
import weakref
from collections import OrderedDict
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import pytest
import torch
from tiny_models import save

import raysp
from raysp.errors import EvaluationError, UserError
from raysp.game import Measurement
from raysp.lenses.feature import FeatureGame
from raysp.masks import pack
from raysp.models import resident as resident_module
from raysp.models.loading import checkpoint_bytes
from raysp.models.training import DivergenceError
from raysp.runtime.evaluator import Evaluator
from raysp.runtime.portable import portable
from raysp.runtime.shape import Shape, choose_shape
from raysp.specs.lenses import AUTO_DTYPE, with_dtype


def write(path, *prompts):
    path.write_text("\n".join(json.dumps({"prompt": prompt, "target": " not", "foil": "!"}) for prompt in prompts))


def test_a_file_that_changes_makes_another_game_and_old_values_are_not_mixed_with_new_ones(tmp_path):
    path, evaluator = tmp_path / "rows.jsonl", Evaluator("e", None)
    lens = raysp.MechanisticLens(model=save("llama", tmp_path / "llama"), prompts=str(path), components="heads:0", dtype="float32", device="cpu")
    write(path, "Her acting never fails", "The film was long")
    before = evaluator.describe("key", lens)
    masks = pack(np.ones((1, before.n), dtype=bool))
    value = evaluator.measure("key", lens, before.fingerprint, masks).values
    write(path, "Her acting never fails", "The film was bad")
    after = evaluator.describe("key", lens)
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(evaluator.measure("key", lens, before.fingerprint, masks).values, value)  # the one that was begun is still there
    with pytest.raises(EvaluationError, match=r"another game from the question.*float32.*explicit dtype"):
        Evaluator("late", None).measure("key", lens, before.fingerprint, masks)


def test_a_game_described_with_dtype_auto_is_measured_in_the_dtype_that_it_resolved_to_without_being_built_again(tmp_path):
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="The film was long", target=" not", foil="!", device="cpu")
    evaluator = Evaluator("e", None)
    info = evaluator.describe(lens.key, lens)
    told = with_dtype(lens, info.description["dtype"])
    assert evaluator._game(told.key, told, info.fingerprint) is evaluator._game(lens.key, lens, info.fingerprint)


def test_more_masks_than_a_game_prefers_are_measured_batch_by_batch():
    given = []

    def outputs(masks):
        given.append(len(masks))
        return np.asarray(masks, dtype=float) @ np.arange(1.0, 7.0)

    lens, masks = raysp.FunctionLens(outputs, n=6, batch_masks=10), np.random.default_rng(0).random((25, 6)) < 0.5
    evaluator = Evaluator("e", None)
    info = evaluator.describe(lens.key, lens)
    given.clear()
    found = evaluator.measure(lens.key, lens, info.fingerprint, pack(masks))
    assert given == [10, 10, 5]
    np.testing.assert_array_equal(found.values, masks @ np.arange(1.0, 7.0))


def test_the_measurement_of_several_batches_has_the_rows_of_all_and_their_cost():
    parts = [Measurement(np.full(m, float(m)), 10 * m, 0.5 * m, np.full((m, 2), float(m)), ("slow", f"{m}")) for m in (2, 3)]
    found = Measurement.of(parts)
    assert (found.values.tolist(), found.tokens, found.seconds) == ([2.0, 2.0, 3.0, 3.0, 3.0], 50, 2.5)
    assert found.outputs.tolist() == [[2.0, 2.0]] * 2 + [[3.0, 3.0]] * 3
    assert found.notes == ("slow", "2", "3")


def test_evaluators_on_nodes_of_other_kinds_compute_in_the_dtype_that_they_are_told(tmp_path, monkeypatch):
    lens = raysp.FeatureLens(model=save("llama", tmp_path / "llama"), prompt="The film was long", target=" not", foil="!", device="cpu")
    monkeypatch.setenv(AUTO_DTYPE, "bfloat16")
    info = Evaluator("one", None).describe(lens.key, lens)
    monkeypatch.setenv(AUTO_DTYPE, "float32")  # what another node would choose by itself
    told, masks = with_dtype(lens, info.description["dtype"]), pack(np.ones((1, info.n), dtype=bool))
    assert np.isfinite(Evaluator("other", None).measure(told.key, told, info.fingerprint, masks).values).all()
    with pytest.raises(EvaluationError, match="nodes compute in different dtypes"):
        Evaluator("other", None).measure(lens.key, lens, info.fingerprint, masks)


def test_errors_reach_another_process_whatever_they_are():
    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    for error in (DivergenceError(1, 2, "its loss was nan"), UserError("a", 1, "is bad", "correct it"), EvaluationError("no"), OddError(1, 2), KeyError("k")):
        arrived = pickle.loads(pickle.dumps(portable(error, "There")))
        assert str(error) in str(arrived)


def test_an_error_that_is_kept_holds_no_frames_and_an_unexpected_one_tells_where_it_was_raised():
    class Model:
        pass

    def fail(kind):
        model = Model()
        alive.append(weakref.ref(model))
        raise kind(f"the text of {model}") from OSError("the cause")

    alive, kept = [], []
    for kind in (KeyError, EvaluationError):
        try:
            fail(kind)
        except (KeyError, EvaluationError) as error:
            kept.append(portable(error, "There"))
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
    unexpected, expected = kept
    assert unexpected.__notes__[0].startswith("There:\n")
    assert "in fail" in unexpected.__notes__[0]
    assert "OSError: the cause" in unexpected.__notes__[0]
    assert not hasattr(expected, "__notes__")


def test_games_used_least_recently_leave_with_their_models_before_another_is_loaded(tmp_path, monkeypatch):
    """On a machine that holds two of three models. The one that stays is not loaded again."""
    folders = [save(kind, tmp_path / kind) for kind in ("llama", "gpt2", "neox")]
    lenses = [raysp.FeatureLens(model=folder, prompt="The film was", target=" not", foil="!", dtype="float32", device="cpu") for folder in folders]
    sizes = {folder: checkpoint_bytes(Path(folder), torch.float32) for folder in folders}
    alive = WeakKeyDictionary()
    loaded, read = [], resident_module.load

    def load(options):
        loaded.append(options.model)
        model = read(options)
        alive[model.model] = sizes[options.model]
        return model

    monkeypatch.setattr(resident_module, "_residents", OrderedDict())  # those of other tests aside
    monkeypatch.setattr(resident_module, "_held", WeakValueDictionary())
    monkeypatch.setattr(resident_module, "load", load)
    monkeypatch.setattr(resident_module, "FILLED", 1.0)
    monkeypatch.setattr("raysp.models.memory._machine", lambda: sum(sizes.values()) - 1 - sum(alive.values()))
    evaluator = Evaluator("e", None)
    infos = [evaluator.describe(lens.key, lens) for lens in lenses[:2]]
    evaluator.measure(lenses[0].key, lenses[0], infos[0].fingerprint, pack(np.ones((1, infos[0].n), dtype=bool)))  # now the other is used least recently
    evaluator.describe(lenses[2].key, lenses[2])
    assert [key for key, _ in evaluator._games] == [lenses[0].key, lenses[2].key]
    evaluator.describe(lenses[0].key, lenses[0])
    assert loaded == folders
    evaluator.describe(lenses[1].key, lenses[1])
    assert loaded == [*folders, folders[1]]


def test_where_memory_runs_out_other_games_make_room(tmp_path, monkeypatch):
    evaluator, model = Evaluator("e", None), save("llama", tmp_path / "llama")
    lenses = {
        text: raysp.FeatureLens(model=model, prompt=text, target=" not", foil="!", dtype="float32", device="cpu") for text in ("The film was", "A letter was")
    }
    first, second = (evaluator.describe(text, lens) for text, lens in lenses.items())
    measure, masks = FeatureGame.measure, pack(np.ones((1, first.n), dtype=bool))
    expected = evaluator.measure("A letter was", lenses["A letter was"], second.fingerprint, masks).values

    def full(game, some, **options):
        if len({fingerprint for _, fingerprint in evaluator._games}) > 1:
            raise EvaluationError("memory does not hold one input") from torch.OutOfMemoryError("CUDA out of memory")
        return measure(game, some, **options)

    monkeypatch.setattr(FeatureGame, "measure", full)
    np.testing.assert_array_equal(evaluator.measure("A letter was", lenses["A letter was"], second.fingerprint, masks).values, expected)
    assert {fingerprint for _, fingerprint in evaluator._games} == {second.fingerprint}

    def never(game, some, **options):
        raise EvaluationError("memory does not hold one input") from torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FeatureGame, "measure", never)
    with pytest.raises(EvaluationError, match="memory does not hold one input"):
        evaluator.measure("A letter was", lenses["A letter was"], second.fingerprint, masks)


def cluster(monkeypatch, *gpus):
    """A cluster whose nodes have 64 cores and so many GPUs each."""
    nodes = [{"Alive": True, "Resources": {"CPU": 64.0, **({"GPU": float(count)} if count else {})}} for count in gpus]
    monkeypatch.setattr("ray.nodes", lambda: nodes)


def asked(device="auto", **options):
    return raysp.RunSpec(lens=raysp.FeatureLens(prompt="a b", device=device), **options)


def test_evaluators_on_gpus_have_one_each_or_a_share_or_as_many_as_are_asked_for(monkeypatch):
    cluster(monkeypatch, 4, 2, 0)
    shapes = {
        given: choose_shape(asked(**dict(given))) for given in [(), (("evaluators", 3),), (("gpus", 2),), (("gpus", 2), ("evaluators", 1)), (("gpus", 4),)]
    }
    told = [(shape.count, dict(shape.resources)["num_gpus"]) for shape in shapes.values()]
    assert told == [(6, 1), (3, 1), (3, 2), (1, 2), (1, 4)]
    assert [shape.threads for shape in shapes.values()] == [16] * 5


@pytest.mark.parametrize("count", [2, 3, 6, 7, 15, 18, 64])
def test_evaluators_that_share_a_gpu_fit_on_it(monkeypatch, count):
    cluster(monkeypatch, 1)
    share = dict(choose_shape(asked(evaluators=count)).resources)["num_gpus"]
    assert round(share * 10_000) * count <= 10_000
    assert share > 0.99 / count
    assert choose_shape(asked(evaluators=count)).threads == min(64 // count, 16)
    assert choose_shape(asked(evaluators=count, threads=3)).threads == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 5}, r"gpus: 5 is more than any node has \(4\); give at most 4"),
        ({"gpus": 2, "evaluators": 4}, r"evaluators: 4 with 2 GPUs each do not fit on 6 GPUs; give at most 3"),
        ({"device": "cuda:1"}, r"device: 'cuda:1' is chosen by Ray"),
        ({"device": "cpu", "gpus": 1}, r"gpus: 1 were asked for each evaluator, but the cluster has none"),
    ],
)
def test_what_gpus_cannot_give_is_reported(monkeypatch, options, message):
    cluster(monkeypatch, 4, 2)
    with pytest.raises(raysp.UserError, match=message):
        choose_shape(asked(**options))


def test_a_run_that_would_have_a_gpu_is_not_left_to_evaluators_without(monkeypatch):
    cluster(monkeypatch, 2)
    function = raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3))
    with_gpu, without = choose_shape(asked("auto")), choose_shape(asked("cpu"))
    assert (with_gpu.count, with_gpu.has_gpu, without.has_gpu) == (2, True, False)
    assert not choose_shape(function).has_gpu
    assert with_gpu.suits(asked("cpu"))  # it can do without
    assert not without.suits(asked("auto"))
    assert Shape(2, None, (("num_gpus", 1.0), ("num_cpus", 1))).suits(function)
