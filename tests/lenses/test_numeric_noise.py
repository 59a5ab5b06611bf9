"""The numeric noise of games: measured on real models, in the dtype that they compute in, beside what their masks change."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from tiny_models import save

import raysp
from raysp.game import Measurement
from raysp.lenses import build_game
from raysp.lenses.numeric_noise import sample_noise
from raysp.models import loading
from raysp.models.resident import is_resident
from raysp.runs.local import local_backend
from raysp.runs.plan import plan_run
from raysp.specs.lenses import AUTO_DTYPE, with_dtype
from raysp.validation.numeric_noise import AUTO_SHARE, NoiseSample, noise_masks, numeric_noise

FILMS = [("the acting never fails", "good"), ("the ending was bad", "bad"), ("a quiet letter", "good"), ("the film was long", "bad")]
CHECKS = raysp.Validation(heldout=16, top=2, random=2, low_pairs=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("llama"))


def trained(model, folder, learning_rate):
    """A data lens of eight examples and one query."""
    paths = {name: folder / f"{name}.jsonl" for name in ("train", "queries")}
    rows = [{"prompt": f"{text} {i}", "completion": answer} for i in range(2) for text, answer in FILMS]
    asked = [{"prompt": "the acting was long", "completion": "good", "foil": "bad"}]
    for name, some in (("train", rows), ("queries", asked)):
        paths[name].write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    recipe = {"adapted_layers": "last:1", "batch_size": 4, "learning_rate": learning_rate, "epochs": 1, "device": "cpu"}
    return raysp.DataLens(model=model, train=str(paths["train"]), queries=str(paths["queries"]), **recipe)


@pytest.fixture
def drowned(model, tmp_path):
    """A data lens whose adapters learn so little that leaving an example out changes less than bfloat16 can tell."""
    return trained(model, tmp_path, 1e-5)


def feature(model, **options):
    return raysp.FeatureLens(model=model, prompt="Her acting never fails to impress me", target=" not", foil="!", device="cpu", **options)


def on_a_processor_with_bfloat16(monkeypatch, tmp_path):
    """This machine's processor, as Linux would describe one that computes in bfloat16."""
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512_bf16\n")
    monkeypatch.setattr(loading, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.delenv(AUTO_DTYPE, raising=False)


def noise_of(lens):
    game = build_game(lens)
    scale = "leave_one_out" if lens.kind == "data" else "values"
    sample = sample_noise(lens, game, noise_masks(game.n, scale, 0.5, 0))
    return numeric_noise(sample, lens.dtype, scale)


def test_a_forward_passs_noise_is_small_beside_the_spread_and_bfloat16s_larger_than_float32s(model):
    wide, narrow = (noise_of(feature(model, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert 0 < wide.share < 1e-4
    assert 100 * wide.share < narrow.share
    assert (wide.reference, narrow.reference) == (False, True)


def test_a_game_that_remembers_values_computes_them_again_for_its_noise(model):
    lens = feature(model, dtype="float32")
    game = build_game(lens)
    masks = noise_masks(game.n, "values", 0.5, 0)
    first = game.measure(masks)
    assert game.measure(masks).tokens == 0
    sample = sample_noise(lens, game, masks, first)
    assert all(repeat.tokens > 0 for repeat in sample.repeats)
    assert all(np.allclose(repeat.values, first.values, atol=1e-4) for repeat in sample.repeats)


def test_a_model_that_was_loaded_for_comparison_leaves_memory_where_noise_is_small(model, monkeypatch):
    monkeypatch.setattr("raysp.models.resident._residents", OrderedDict())
    lens = with_dtype(feature(model), "bfloat16")
    assert noise_of(lens).is_small
    assert not is_resident(with_dtype(lens, "float32"))


def test_effects_that_drown_in_bfloat16_do_not_in_float32(drowned):
    narrow, wide = (noise_of(with_dtype(drowned, dtype)) for dtype in ("bfloat16", "float32"))
    assert not narrow.is_small
    assert narrow.share > 0.5
    assert wide.is_small


def effects_in_float32(lens):
    """The effects of leaving out each component, float64 `(n,)`, computed in float32 in an order that no run uses."""
    game = build_game(with_dtype(lens, "float32"))
    masks = np.concatenate([~np.eye(game.n, dtype=bool), np.ones((1, game.n), dtype=bool)])
    values = game.remeasure(masks).values
    return values[-1] - values[:-1]


def size(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("learning_rate", [1e-5, 1e-4, 1e-3, 1e-2])
def test_leave_one_out_effects_of_a_run_do_not_drown_unless_bfloat16_is_forced(model, tmp_path, monkeypatch, learning_rate):
    lens = trained(model, tmp_path, learning_rate)
    expected = effects_in_float32(lens)

    def answer():
        result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Screen(top_k=2), validation=CHECKS, local=True))
        error = size(result.singles["value"].to_numpy() - expected) / size(expected)
        return result, error, {reason["code"] for reason in result.summary["reasons"]}

    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    result, error, codes = answer()
    noise = result.summary["metrics"]["numeric_noise"]
    assert (noise["dtype"], noise["scale"]) == (result.summary["dtype"], "leave_one_out")
    assert max(noise["share"], noise["query_share"]) <= AUTO_SHARE
    assert error <= 2 * AUTO_SHARE  # an effect is a difference of two values
    assert "numeric_noise" not in codes
    monkeypatch.setenv(AUTO_DTYPE, "bfloat16")
    result, error, codes = answer()
    assert result.summary["dtype"] == "bfloat16"
    assert error > 0.5
    assert "numeric_noise" in codes


def test_auto_turns_to_float32_where_effects_drown_in_bfloat16(drowned, tmp_path, monkeypatch):
    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    assert loading.choose_dtype("auto", torch.device("cpu")) == torch.bfloat16
    spec = raysp.RunSpec(lens=drowned, explorer=raysp.Singles(), validation=CHECKS, local=True)
    result = raysp.run(spec)
    noise = result.summary["metrics"]["numeric_noise"]
    assert (result.summary["dtype"], noise["dtype"], noise["rejected"]["dtype"]) == ("float32", "float32", "bfloat16")
    assert noise["share"] < 0.05 < noise["rejected"]["share"]
    assert "numeric_noise" not in {reason["code"] for reason in result.summary["reasons"]}
    paid = {row["phase"]: row["evaluations"] for row in result.costs.to_pylist()}
    assert paid["calibrate"] == 4 * 5  # five trainings in bfloat16, five again, five in float32, five of those again
    again = raysp.run(spec)
    assert again.summary["metrics"]["numeric_noise"] == noise | {"rejected": noise["rejected"]}
    assert "calibrate" not in {row["phase"] for row in again.costs.to_pylist() if row["evaluations"]}  # what is known is not measured again


def test_bfloat16_that_was_asked_for_is_kept_and_the_verdict_says_what_drowned(drowned):
    result = raysp.run(raysp.RunSpec(lens=with_dtype(drowned, "bfloat16"), explorer=raysp.Singles(), validation=CHECKS, local=True))
    assert result.summary["dtype"] == "bfloat16"
    reason = next(reason for reason in result.summary["reasons"] if reason["code"] == "numeric_noise")
    assert reason["figures"]["share"] == result.summary["metrics"]["numeric_noise"]["share"]
    assert "use --dtype float32" in reason["sentence"]
    assert result.summary["verdict"] == "do not trust"


def test_auto_keeps_bfloat16_where_its_noise_is_small(model, tmp_path, monkeypatch):
    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    spec = raysp.RunSpec(lens=feature(model), explorer=raysp.Exhaustive(), validation=CHECKS, local=True)
    result = raysp.run(spec)
    noise = result.summary["metrics"]["numeric_noise"]
    assert (result.summary["dtype"], noise["rejected"]) == ("bfloat16", None)
    assert 0 < noise["share"] < 0.05


def test_a_run_that_is_continued_keeps_its_dtype(drowned, tmp_path, monkeypatch):
    spec = raysp.RunSpec(lens=drowned, explorer=raysp.Singles(), validation=CHECKS, local=True)
    monkeypatch.delenv(AUTO_DTYPE, raising=False)
    (tmp_path / "plain").write_text("flags : fpu avx2\n")
    monkeypatch.setattr(loading, "CPU_INFO", tmp_path / "plain")
    first = raysp.run(spec)
    assert first.summary["dtype"] == "float32"
    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    monkeypatch.setattr("raysp.validation.numeric_noise.AUTO_SHARE", float("inf"))
    assert raysp.run(spec, run_id=first.run_id).summary["dtype"] == "float32"
    assert raysp.run(spec).summary["dtype"] == "bfloat16"


def test_a_run_computes_in_the_dtype_that_its_plan_settled_on_and_does_not_measure_noise_again(drowned, tmp_path, monkeypatch):
    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    spec = raysp.RunSpec(lens=drowned, explorer=raysp.Singles(), validation=CHECKS, local=True, store=str(tmp_path / "s.duckdb"))
    with raysp.Store.open(tmp_path / "s.duckdb") as store:
        planned = plan_run(spec, store, local_backend(spec.lens))
    result = raysp.run(spec)
    assert result.summary["metrics"]["numeric_noise"] == planned["numeric_noise"]
    assert (result.summary["dtype"], planned["numeric_noise"]["rejected"]["dtype"]) == ("float32", "bfloat16")
    assert not any(row["evaluations"] for row in result.costs.to_pylist() if row["phase"] == "calibrate")


def test_a_plan_settles_on_a_runs_dtype_where_it_may_not_write(drowned, tmp_path, monkeypatch):
    on_a_processor_with_bfloat16(monkeypatch, tmp_path)
    spec = raysp.RunSpec(lens=drowned, explorer=raysp.Singles(), validation=CHECKS, local=True, store=str(tmp_path / "s.duckdb"))
    raysp.Store.open(tmp_path / "s.duckdb").close()
    with raysp.Store.read(tmp_path / "s.duckdb") as store:
        planned = plan_run(spec, store, local_backend(spec.lens))
        assert store.sql("SELECT fingerprint FROM numeric_noise UNION ALL SELECT fingerprint FROM games").num_rows == 0
    result = raysp.run(spec)
    dtypes = (planned["numeric_noise"]["dtype"], planned["numeric_noise"]["rejected"]["dtype"])
    assert dtypes == (result.summary["dtype"], "bfloat16") == ("float32", "bfloat16")


def measured(values):
    return Measurement(np.array(values, np.float64), 0, 0.0)


def test_noise_is_the_scatter_of_repeats_or_of_differences_from_float32_and_no_shift_of_all_values():
    masks = np.eye(3, dtype=bool)
    first = measured([1.0, 2.0, 4.0])
    shifted = NoiseSample(masks, first, (first,), measured([1.5, 2.5, 4.5]), 0, 0.0)
    assert numeric_noise(shifted, "bfloat16", "values").noise == pytest.approx(0.0)
    apart = NoiseSample(masks, first, (measured([1.2, 2.2, 3.8]),), None, 0, 0.0)
    found = numeric_noise(apart, "bfloat16", "values")
    assert found.noise == pytest.approx(0.2 / np.sqrt(2))
    assert found.spread == pytest.approx(np.std([1.0, 2.0, 4.0], ddof=1))
    assert numeric_noise(apart, "bfloat16", "leave_one_out").spread == pytest.approx(np.sqrt((1 + 9) / 2))


def test_values_that_nothing_changes_have_no_share_and_values_that_only_noise_changes_have_all():
    masks, flat = np.eye(2, dtype=bool), measured([1.0, 1.0])
    assert numeric_noise(NoiseSample(masks, flat, (flat,), None, 0, 0.0), "float32", "values").share == 0.0
    assert numeric_noise(NoiseSample(masks, flat, (measured([1.0, 1.1]),), None, 0, 0.0), "float32", "values").share == 1.0
