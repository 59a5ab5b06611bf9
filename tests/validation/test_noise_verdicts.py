"""Numeric noise as a reason of a verdict: beside the effects that are reported, and beside the spread that it was measured against."""

import numpy as np
import pytest

from raysp.explorers.samples import CONSTANT_VALUE
from raysp.validation.numeric_noise import AUTO_SHARE, NumericNoise, noise_masks, typical_effects
from raysp.validation.verdicts import NoiseBesideEffects, verdict

METRICS = {"r2": 0.95, "r2_lo": 0.9, "r2_hi": 0.99, "r2_singles": 0.5, "heldout": 100.0, "gain": 0.45, "gain_lo": 0.3, "gain_hi": 0.6}


def judged(noise, *, single=1.0, deviation=0.0, dtype="bfloat16", spread=1.0, query_share=0.0):
    share = noise / spread
    measured = NumericNoise(dtype, noise, spread, share, max(share, query_share), "values", 12, 2, reference=True)
    beside = NoiseBesideEffects(measured, single, deviation)
    words, reasons = verdict(METRICS, constant=False, complete=False, screened=False, noise=beside)
    return words, next((reason for reason in reasons if reason.code == "numeric_noise"), None)


def test_noise_that_is_small_beside_effects_and_spread_is_no_reason():
    assert judged(0.04) == ("reliable", None)


@pytest.mark.parametrize(
    "large",
    [{"noise": 0.06}, {"noise": 0.04, "single": 0.5}, {"noise": 0.04, "deviation": 0.5}, {"noise": 0.04, "query_share": 0.06}],
    ids=["share of the spread", "single effects", "deviations", "queries"],
)
def test_noise_that_is_not_small_asks_for_care_and_says_what_to_do(large):
    words, reason = judged(**large)
    assert words == "use with care"
    assert reason.figures["noise"] == large["noise"]
    assert reason.sentence.endswith("use --dtype float32.")


def test_noise_of_half_an_effect_leaves_nothing_to_trust():
    assert judged(0.04, single=0.1)[0] == "do not trust"
    assert judged(0.6)[0] == "do not trust"


def test_a_value_that_rounding_keeps_constant_is_said_to_drown():
    beside = NoiseBesideEffects(NumericNoise("bfloat16", 1.0, 1.0, 1.0, 1.0, "leave_one_out", 5, 1, reference=True), 0.0, 0.0)
    words, reasons = verdict(METRICS, constant=True, complete=False, screened=False, noise=beside)
    assert (words, [reason.code for reason in reasons]) == ("do not trust", ["constant_value", "numeric_noise"])
    assert reasons[0].sentence.startswith(CONSTANT_VALUE)


def test_in_float32_the_advice_is_another():
    assert "--dtype" not in judged(0.1, dtype="float32")[1].sentence


def test_typical_effects_are_medians_of_those_worth_naming():
    assert typical_effects(np.array([1.0, -0.5, 0.01]), np.array([0.2, -0.3, 0.05])) == (0.75, 0.25)
    assert typical_effects(np.zeros(3), np.zeros(0)) == (0.0, 0.0)


def test_the_masks_of_a_training_set_leave_one_component_out_each():
    masks = noise_masks(10, "leave_one_out", 0.5, seed=3)
    assert masks[0].all()
    assert ((~masks[1:]).sum(axis=1) == 1).all()
    assert len(np.unique(masks, axis=0)) == len(masks) == 5
    np.testing.assert_array_equal(masks, noise_masks(10, "leave_one_out", 0.5, seed=3))
    assert noise_masks(2, "leave_one_out", 0.5, seed=0).shape == (3, 2)


def test_the_share_that_auto_allows_keeps_a_pairs_deviation_below_what_is_worth_naming():
    assert 2 * AUTO_SHARE <= 0.1
