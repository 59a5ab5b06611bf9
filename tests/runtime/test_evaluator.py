"""An evaluator outside Ray: it measures the game that was described, or says that it cannot."""

import json
import pickle

import numpy as np
import pytest
from tiny_models import save

import raysp
from raysp.errors import EvaluationError, UserError
from raysp.game import pack
from raysp.models.training import DivergenceError
from raysp.runtime.evaluator import Evaluator
from raysp.runtime.pool import Shape, choose_shape
from raysp.runtime.retraining import _sent
from raysp.runtime.scheduler import Scheduler


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
    with pytest.raises(EvaluationError, match=r"another game of the question.*float32.*ask again"):
        Evaluator("late", None).measure("key", lens, before.fingerprint, masks)


def test_errors_reach_another_process_whatever_they_are():
    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    for error in (DivergenceError(1, 2, "its loss was nan"), UserError("a", 1, "is bad", "mend it"), EvaluationError("no"), OddError(1, 2), KeyError("k")):
        arrived = pickle.loads(pickle.dumps(_sent(error)))
        assert str(error) in str(arrived)


def test_a_run_that_would_have_a_gpu_is_not_left_to_evaluators_without(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": 2.0, "CPU": 64.0})
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 64.0}}])
    asked = {device: raysp.RunSpec(lens=raysp.FeatureLens(prompt="a b", device=device)) for device in ("auto", "cpu")}
    function = raysp.RunSpec(lens=raysp.FunctionLens(lambda masks: masks.sum(axis=1), n=3))
    with_gpu, without = choose_shape(asked["auto"]), choose_shape(asked["cpu"])
    assert (with_gpu.count, with_gpu.has_gpu, without.has_gpu) == (2, True, False)
    assert not choose_shape(function).has_gpu
    assert Scheduler._suits(asked["cpu"], with_gpu)  # they can do without
    assert not Scheduler._suits(asked["auto"], without)
    assert Scheduler._suits(function, Shape(2, None, (("num_gpus", 1.0), ("num_cpus", 1))))
