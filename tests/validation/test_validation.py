"""Validation by exact ablations, on games whose answer is known."""

import numpy as np
import pytest
from spectral.known_games import additive, and_or, constant, explore, hidden_pairs, parity

from raysp.explorers import Exhaustive, ProxySPEX, Screen, Singles
from raysp.gradients import GradientReport
from raysp.sampling.tables import singles_table
from raysp.spectral.regression import r_squared
from raysp.validation import KINDS, Validation, compare_attributions, judge, kind_of, plan, surrogate_kinds


def codes(result):
    return [reason.code for reason in result.reasons]


def validated(explorer, function, n, options=None, seed=0):
    options = options or Validation()
    started = explore(explorer, function, n, seed)
    planned = plan(started.result(), n, options, explorer.keep_probability, np.random.default_rng(seed))
    return planned, judge(planned, function(planned.masks), started.masks, started.values, seed)


@pytest.mark.parametrize(
    ("joint_effect", "sum_of_effects", "kind"),
    [
        (1.0, 0.0, "redundancy"),  # or
        (1.0, 2.0, "synergy"),  # and
        (-1.0, -2.0, "synergy"),
        (-1.0, 0.0, "redundancy"),
        (0.0, 1.5, "synergy"),
        (0.0, 0.0, "additive"),
        (3.0, 3.0 + 1e-12, "additive"),
        (2.0, -1.0, "redundancy"),
    ],
)
def test_one_rule_says_synergy_or_redundancy(joint_effect, sum_of_effects, kind):
    assert kind_of(joint_effect, sum_of_effects) == kind
    assert KINDS[kind].endswith(".")


def test_triples_follow_the_same_rule():
    masks = np.ones((2, 3), dtype=bool)
    masks[1] = False
    all_needed, any_will_do = masks.all(axis=1).astype(float), masks.any(axis=1).astype(float)
    assert kind_of(all_needed[0] - all_needed[1], 3.0) == "synergy"
    assert kind_of(any_will_do[0] - any_will_do[1], 0.0) == "redundancy"


@pytest.mark.parametrize("explorer", [ProxySPEX(), Screen()], ids=lambda explorer: explorer.name)
def test_and_or_is_found_and_reliable(explorer):
    planned, result = validated(explorer, and_or, 30)
    assert result.verdict == "reliable"
    assert result.metrics["r2"] > 0.95 > result.metrics["r2_singles"]
    assert result.metrics["r2_lo"] <= result.metrics["r2"] <= result.metrics["r2_hi"]
    rows = {tuple(row["components"]): row for row in result.table.to_pylist()}
    assert rows[0, 1]["exact"] == pytest.approx(-2)
    assert (rows[0, 1]["kind"], rows[2, 3]["kind"]) == ("synergy", "redundancy")
    assert (rows[2, 3]["joint_effect"], rows[2, 3]["sum_of_effects"]) == pytest.approx((3, 0))
    assert rows[0, 1]["estimate"] == pytest.approx(-2, abs=0.3)
    assert all(row["error"] == pytest.approx(row["estimate"] - row["exact"]) for row in rows.values())
    assert 150 < result.heldout.num_rows <= 200  # those that the explorer had measured itself are not scored
    assert len(planned.masks) <= Validation().planned(30, 4)


def test_a_game_without_interactions_says_that_singles_do():
    _, result = validated(ProxySPEX(), additive, 30)
    assert result.verdict == "reliable"
    assert "interactions_no_gain" in codes(result)


@pytest.mark.parametrize("explorer", [ProxySPEX(), Screen(), Singles()], ids=lambda explorer: explorer.name)
def test_a_parity_is_not_trusted(explorer):
    _, result = validated(explorer, parity, 25)
    assert result.verdict == "do not trust"
    assert "surrogate_poor" in codes(result)


def test_balanced_low_impact_pairs_break_the_assumption_of_a_screening():
    _, result = validated(Screen(), hidden_pairs, 30, Validation(low_pairs=100))
    assert result.verdict == "do not trust"
    [missed] = [reason for reason in result.reasons if reason.code == "low_impact_missed"]
    assert missed.figures["low_missed"] > missed.figures["bar"]
    assert "proxyspex" in missed.sentence
    assert result.metrics["low_largest"] == pytest.approx(3)
    assert result.metrics["low_share"] == pytest.approx(1 - 0.05**0.01)


def test_rounding_where_nothing_happens_around_the_intact_input_is_no_failed_assumption():
    def flat(masks):
        """A share of right answers, which stays until half of the components are gone."""
        kept = np.asarray(masks).sum(axis=1)
        return np.where(kept >= 8, 0.875, 0.25) + np.where(kept % 2, 2.5e-16, 0.0)

    _, result = validated(ProxySPEX(budget=120), flat, 16)
    assert result.metrics["low_largest"] < 1e-12
    assert "low_impact_clear" in codes(result)


def test_the_same_pairs_do_not_trouble_an_explorer_that_saw_them():
    _, result = validated(ProxySPEX(budget=1500), hidden_pairs, 30, Validation(low_pairs=100))
    assert result.verdict == "reliable"
    assert result.metrics["low_missed"] < 0.5


@pytest.mark.parametrize("explorer", [ProxySPEX(), Screen(), Singles(), Exhaustive()], ids=lambda explorer: explorer.name)
def test_a_value_that_never_changes_is_reported_plainly(explorer):
    _, result = validated(explorer, constant, 10)
    assert result.verdict == "use with care"
    assert codes(result)[0] == "constant_value"
    assert "r2" not in result.metrics or np.isfinite(result.metrics["r2"])


@pytest.mark.parametrize("explorer", [Exhaustive(), ProxySPEX(budget=4096)], ids=lambda explorer: explorer.name)
@pytest.mark.parametrize("n", [6, 9])
def test_complete_tables_are_exact(explorer, n):
    _, result = validated(explorer, and_or, n)
    assert result.verdict == "reliable"
    assert codes(result)[0] == "complete"
    assert result.metrics["r2"] == pytest.approx(1)
    assert result.metrics["heldout"] == 0


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("explorer", [Exhaustive(), ProxySPEX(), Screen(), Singles()], ids=lambda explorer: explorer.name)
def test_one_or_two_components_are_judged_too(explorer, n):
    _, result = validated(explorer, lambda masks: 2.0 * masks.all(axis=1), n)
    assert result.verdict in {"reliable", "use with care"}
    if explorer.name != "singles":
        assert result.verdict == "reliable"


def test_masks_that_were_fitted_on_are_not_scored_on():
    started = explore(ProxySPEX(budget=1000), and_or, 10)
    planned = plan(started.result(), 10, Validation(), 0.5, np.random.default_rng(0))
    result = judge(planned, and_or(planned.masks), started.masks, started.values)
    assert result.metrics["heldout"] < 24 + 1
    fresh = plan(started.result(), 10, Validation(), 0.5, np.random.default_rng(0), known=started.masks)
    assert len(fresh.heldout) == 24


def test_all_of_the_top_and_a_random_part_of_the_rest_are_measured_once():
    findings = explore(Screen(), and_or, 30).result()
    planned = plan(findings, 30, Validation(top=4, random=6, low_pairs=5, heldout=50), 0.9, np.random.default_rng(0))
    reported = [tuple(members) for members in findings.table["components"].to_pylist()]
    assert list(planned.top) == reported[:4]
    assert len(set(planned.random) & set(reported[4:])) == 6
    kept = set(findings.diagnostics["kept"])
    assert len(set(planned.low_pairs)) == 5
    assert all(not kept & set(pair) for pair in planned.low_pairs)
    assert len(np.unique(planned.masks, axis=0)) == len(planned.masks)
    assert abs(planned.heldout.mean() - 0.9) < 0.05


def test_parts_can_be_switched_off():
    planned, result = validated(Screen(), and_or, 20, Validation(heldout=0, top=3, random=0, low_pairs=0))
    assert (len(planned.heldout), len(planned.random), len(planned.low_pairs)) == (0, 0, 0)
    assert result.verdict == "use with care"
    assert codes(result)[0] == "not_held_out"
    nothing, _ = validated(Screen(), and_or, 20, Validation(heldout=0, top=0, random=0, low_pairs=0))
    assert len(nothing.masks) == 1


def test_a_wrong_surrogate_is_caught():
    started = explore(ProxySPEX(), and_or, 20)
    planned = plan(started.result(), 20, Validation(), 0.5, np.random.default_rng(0))
    result = judge(planned, -and_or(planned.masks), started.masks, started.values)
    assert result.verdict == "do not trust"
    assert result.metrics["sign_agreement"] < 0.2
    assert result.metrics["error_lo"] <= result.metrics["error"] <= result.metrics["error_hi"]


def test_values_that_do_not_fit_the_plan_name_both_shapes():
    started = explore(Screen(), and_or, 12)
    planned = plan(started.result(), 12, Validation(), 0.9, np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"\(3,\).*\({len(planned.masks)},\)"):
        judge(planned, np.zeros(3), started.masks, started.values)


def test_kinds_of_sets_not_measured_come_from_the_surrogate():
    findings = explore(Exhaustive(), and_or, 8).result()
    table = surrogate_kinds(findings.surrogate, [(0, 1), (3, 2), (4, 5), (0, 1, 2)])
    assert table["kind"].to_pylist() == ["synergy", "redundancy", "additive", "synergy"]
    assert table["joint_effect"].to_pylist() == pytest.approx([2, 3, 1.5, 2])
    assert table["sum_of_effects"].to_pylist() == pytest.approx([4, 0, 1.5, 4])
    assert table["deviation"].to_pylist() == pytest.approx([-2, 3, 0, 0], abs=1e-9)
    assert surrogate_kinds(findings.surrogate, []).num_rows == 0


def test_a_plan_is_decided_by_its_generator():
    findings = explore(ProxySPEX(), and_or, 15).result()
    one, two = (plan(findings, 15, Validation(), 0.5, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.masks, two.masks)
    assert one.random == two.random


# ---- cross-checks


def report(unsigned=frozenset(), notes=(), **effects):
    return GradientReport({method: values[None] for method, values in effects.items()}, unsigned, notes=notes)


def test_a_methods_effects_on_the_value_are_the_mean_over_the_queries():
    agreement = compare_attributions(GradientReport({"any": np.array([[0.0, 3.0, 2.0], [2.0, 1.0, 3.0]])}), singles_of([1, 2, 2.5], ["removed"] * 3))
    assert agreement.metrics["any"]["spearman"] == pytest.approx(1)
    assert agreement.table["value"].to_pylist() == [1.0, 2.0, 2.5]


def singles_of(effects, methods):
    return singles_table(np.array(effects, dtype=float), np.zeros(len(effects)), methods)


def test_agreement_is_the_correlation_of_ranks_and_the_share_of_the_strongest():
    effects = [5.0, -4.0, 3.0, 2.0, 1.0, 0.1, -0.2]
    found = {"good": np.array(effects) ** 3, "reversed": -np.array(effects), "sizes": np.abs(effects), "flat": np.zeros(7), "late": np.arange(7.0)}
    agreement = compare_attributions(report(frozenset({"sizes"}), **found), singles_of(effects, ["removed"] * 7))
    assert agreement.metrics["good"] == {"spearman": pytest.approx(1), "top": 1.0}
    assert agreement.metrics["reversed"] == {"spearman": pytest.approx(-1), "top": 1.0}
    assert agreement.metrics["sizes"] == {"spearman": pytest.approx(1), "top": 1.0}
    assert agreement.metrics["flat"]["spearman"] is None
    assert agreement.metrics["late"]["top"] == 3 / 5
    assert agreement.reasons[0].sentence == "Cross-check: good ranks single effects with correlation +1.00 (top 5: 5 shared)."
    assert agreement.reasons[0].figures == {"method": "good", "spearman": pytest.approx(1), "top": 1.0, "compared": 7, "source": "removed"}
    assert "the sizes of single effects" in agreement.reasons[2].sentence
    assert "cannot be compared" in agreement.reasons[3].sentence
    assert "spearman" not in agreement.reasons[3].figures
    assert agreement.table.num_rows == 5 * 7
    assert not agreement.missing


def test_only_what_was_measured_is_compared_with_where_something_was():
    mixed = compare_attributions(report(any=np.array([3.0, 2.0, 1.0, 9.0])), singles_of([3, 2, 1, 0], ["removed", "removed", "removed", "gradient"]))
    assert mixed.metrics["any"] == {"spearman": pytest.approx(1), "top": 1.0}
    assert (mixed.reasons[0].figures["source"], mixed.reasons[0].figures["compared"]) == ("some_removed", 3)
    fitted = compare_attributions(report(any=np.arange(4.0)), singles_of([0, 1, 2, 3], ["surrogate"] * 4))
    assert fitted.metrics["any"]["spearman"] == pytest.approx(1)
    assert fitted.reasons[0].figures["source"] == "surrogate"


def test_what_is_missing_is_reported():
    [nothing] = compare_attributions(GradientReport(), singles_of([1, 2], ["removed"] * 2)).reasons
    assert nothing.code == "cross_check_missing"
    agreement = compare_attributions(report(notes=("two is left out: because",), one=np.arange(2.0)), singles_of([1, 2], ["removed"] * 2))
    assert [reason.sentence for reason in agreement.missing] == ["Cross-check: two is left out: because."]
    assert agreement.reasons[-1] is agreement.missing[0]


def test_perfect_predictions_of_few_masks_leave_room_for_one_that_was_not_seen():
    started = explore(ProxySPEX(), additive, 30)
    planned = plan(started.result(), 30, Validation(heldout=40), 0.5, np.random.default_rng(0))
    metrics = judge(planned, additive(planned.masks), started.masks, started.values).metrics
    assert metrics["r2"] > 0.999
    assert metrics["r2_lo"] == pytest.approx(1 - 1 / (metrics["heldout"] + 1), abs=1e-3)
    assert metrics["r2_near_lo"] == pytest.approx(1 - 1 / (metrics["near"] + 1), abs=1e-3)


def losing(height, *, shown):
    """Single effects, and a loss once none of eight components is left, as one mask in 256 has it. Unless `shown`, the only mask that shows it is the empty one."""

    def values(masks):
        masks = np.asarray(masks, dtype=np.bool_)
        lost = ~masks[:, :8].any(axis=1) if shown else ~masks.any(axis=1)
        return masks @ np.linspace(0.2, 0.6, masks.shape[1]) - height * lost

    return values


@pytest.mark.parametrize(("height", "said"), [(6.0, "reliable"), (30.0, "use with care")])
def test_an_event_that_only_the_empty_input_shows_is_told_and_widens_the_interval(height, said):
    planned, result = validated(ProxySPEX(budget=300), losing(height, shown=False), 24)
    fresh = np.random.default_rng(1).random((20_000, 24)) < 0.5
    truth = r_squared(losing(height, shown=True)(fresh), planned.findings.surrogate.predict(fresh))
    assert result.metrics["empty_missed"] == pytest.approx(-height, rel=0.1)
    assert result.metrics["r2_lo"] <= truth < 0.95 < result.metrics["r2"]
    assert "empty_missed" in codes(result)
    assert result.verdict == said


def test_an_empty_input_as_expected_says_nothing():
    _, result = validated(ProxySPEX(budget=300), additive, 24)
    assert result.metrics["empty_missed"] == pytest.approx(0, abs=0.05)
    assert "empty_missed" not in codes(result)


def test_where_every_mask_is_known_none_can_surprise():
    _, result = validated(Exhaustive(), and_or, 8)
    assert result.metrics["r2_lo"] == pytest.approx(1)
