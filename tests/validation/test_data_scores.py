"""The scores of data attribution, against scipy and against games whose answer is known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from raysp.validation.data_scores import (
    additive_predictions,
    brittleness,
    ceiling,
    held_out_subsets,
    lds,
    leave_one_out,
    mislabel_auc,
    paired_difference,
    random_floor,
    without_most_helpful,
)

N, SUBSETS, QUERIES = 12, 100, 6


def drawn(count=SUBSETS, seed=0, excluded=None):
    return held_out_subsets(N, N // 2, count, np.random.default_rng(seed), np.zeros((0, N), dtype=bool) if excluded is None else excluded)


def planted(seed=1):
    """Effects that add up, one column a query."""
    return np.random.default_rng(seed).normal(size=(N, QUERIES))


def outputs(masks, effects, noise=0.0, seed=2):
    return masks @ effects + noise * np.random.default_rng(seed).normal(size=(len(masks), effects.shape[1]))


@pytest.mark.parametrize("ties", [False, True])
def test_each_query_s_score_is_spearman_s_correlation(ties):
    rng = np.random.default_rng(0)
    predicted, actual = rng.normal(size=(2, 40, 5))
    if ties:
        predicted, actual = np.round(predicted), np.round(2 * actual) / 2
    found = lds(predicted, actual)
    wanted = [stats.spearmanr(one, other).statistic for one, other in zip(predicted.T, actual.T, strict=True)]
    assert found.by_query == pytest.approx(wanted, abs=1e-9)
    assert found.mean.value == pytest.approx(np.mean(wanted), abs=1e-9)
    assert found.mean.lo < found.mean.value < found.mean.hi
    assert found.left_out == ()


def test_rows_drawn_twice_share_their_rank():
    """A resample's correlation is the one of the rows written out as often as they were drawn."""
    from raysp.validation.data_scores import _weighted

    rng = np.random.default_rng(3)
    predicted, actual = np.round(rng.normal(size=(2, 15, 2)), 1)
    counts = rng.multinomial(15, np.full(15, 1 / 15), 4)
    written = [(np.repeat(predicted, row, axis=0), np.repeat(actual, row, axis=0)) for row in counts]
    for kind, oracle in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        wanted = [[oracle(one[:, q], other[:, q]).statistic for q in range(2)] for one, other in written]
        assert _weighted(predicted, actual, counts.astype(float), kind) == pytest.approx(np.array(wanted), abs=1e-8)


def test_the_truth_scores_one_and_its_opposite_minus_one():
    masks, effects = drawn(), planted()
    right = lds(additive_predictions(effects, masks), outputs(masks, effects))
    assert (right.mean.value, right.mean.lo, right.mean.hi) == pytest.approx((1, 1, 1))
    assert lds(-additive_predictions(effects, masks), outputs(masks, effects)).mean.value == pytest.approx(-1)


def test_a_query_that_never_varies_is_left_out_and_a_prediction_that_never_varies_scores_nothing():
    masks, effects = drawn(), planted()
    actual, predicted = outputs(masks, effects), additive_predictions(effects, masks)
    actual[:, 1], predicted[:, 2], predicted[:, 3] = -3.7, 5.0, 0.1 + 1e-16 * np.arange(SUBSETS)
    found = lds(predicted, actual)
    assert found.left_out == (1,)
    assert np.isnan(found.by_query[1])
    assert found.by_query[[0, 2, 3, 4, 5]] == pytest.approx([1, 0, 0, 1, 1])
    assert found.mean.value == pytest.approx(3 / 5)
    nothing = lds(predicted, np.zeros_like(actual))
    assert nothing.left_out == tuple(range(QUERIES))
    assert np.isnan([nothing.mean.value, nothing.mean.lo, nothing.mean.hi]).all()


def test_sums_that_differ_by_rounding_are_ties():
    predicted = np.array([0.3, 0.1 + 0.2, 0.5, 0.7])[:, None]
    actual = np.array([1.0, 2.0, 3.0, 4.0])[:, None]
    assert lds(predicted, actual).by_query[0] == pytest.approx(stats.spearmanr([1, 1, 2, 3], [1, 2, 3, 4]).statistic)


def test_the_interval_holds_the_score_that_endless_subsets_and_queries_would_give():
    """Over repeated experiments, each with queries and subsets of its own, most intervals hold the long-run mean; resampling one alone would be too narrow."""

    def experiment(seed, subsets=40, queries=6):
        rng = np.random.default_rng(seed)
        effects = rng.normal(size=(N, queries))
        masks = held_out_subsets(N, N // 2, subsets, rng, np.zeros((0, N), dtype=bool))
        noise = rng.uniform(0.2, 3, queries) * rng.normal(size=(subsets, queries))
        return lds(additive_predictions(effects, masks), masks @ effects + noise, draws=150, seed=seed).mean

    found = [experiment(seed) for seed in range(120)]
    truth = np.mean([each.value for each in found])
    assert 0.85 <= np.mean([each.lo <= truth <= each.hi for each in found]) <= 1.0


def test_scores_are_the_same_each_time():
    masks, effects = drawn(), planted()
    assert lds(masks @ planted(5), masks @ effects, seed=7).mean == lds(masks @ planted(5), masks @ effects, seed=7).mean


# ---- ceiling and floor


def trained(seeds, subsets=250, noise=1.0):
    """Outputs `(seeds, m, q)` of additive games, with noise that is each training's own, and what they are on average."""
    rng = np.random.default_rng(4)
    masks = np.random.default_rng(0).random((subsets, 40)) < 0.5
    expected = masks @ rng.normal(size=(40, QUERIES))
    return expected + noise * expected.std() * rng.normal(size=(seeds, *expected.shape)), expected


def test_the_ceiling_of_two_seeds_is_the_correlation_between_them():
    told, _ = trained(2)
    found = ceiling(told, draws=100)
    wanted = np.array([stats.spearmanr(told[0, :, q], told[1, :, q]).statistic for q in range(QUERIES)])
    assert found.halves.by_query == pytest.approx(wanted, abs=1e-9)
    assert found.averaged.value == pytest.approx(np.mean(2 * wanted / (1 + wanted)), abs=1e-9)
    assert found.attainable.value == pytest.approx(np.mean(np.sqrt(2 * wanted / (1 + wanted))), abs=1e-9)
    assert found.seeds == 2


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_who_knows_the_expected_output_scores_what_the_ceiling_calls_attainable(seeds):
    """Two means over that many seeds agree as the Spearman-Brown formula predicts."""
    told, expected = trained(2 * seeds)
    found = ceiling(told[:seeds], draws=100)
    assert found.attainable.value == pytest.approx(lds(expected, told[:seeds].mean(axis=0), draws=10).mean.value, abs=0.03)
    again = lds(told[:seeds].mean(axis=0), told[seeds:].mean(axis=0), draws=10).mean.value
    assert found.averaged.value == pytest.approx(again, abs=0.05)
    assert found.attainable.lo < found.attainable.value < found.attainable.hi


def test_seeds_that_agree_have_a_ceiling_of_one_and_seeds_that_do_not_one_near_nothing():
    masks, effects = drawn(), planted()
    same = ceiling(np.stack([outputs(masks, effects)] * 3), draws=100)
    assert same.halves.mean.value == same.averaged.value == same.attainable.value == pytest.approx(1)
    apart = ceiling(np.random.default_rng(0).normal(size=(2, 200, QUERIES)), draws=100)
    assert abs(apart.halves.mean.value) < 0.1
    assert apart.averaged.value < 0.2


def test_one_seed_has_no_ceiling():
    with pytest.raises(ValueError, match="one seed"):
        ceiling(np.zeros((1, 10, 2)))


def test_components_taken_for_one_another_score_nothing():
    masks, effects = drawn(), planted()
    floor = random_floor(lambda some: additive_predictions(effects, some), masks, outputs(masks, effects), shuffles=40)
    assert floor.lo < 0 < floor.hi
    assert abs(floor.value) < 0.15
    assert lds(additive_predictions(effects, masks), outputs(masks, effects)).mean.value > floor.hi


# ---- harm, leave-one-out, brittleness


def test_the_share_of_pairs_in_which_the_mislabelled_one_is_the_more_harmful():
    effects = np.array([-2.0, -1.0, -1.0, 0.5, 3.0])
    mislabelled = np.array([True, False, True, False, False])
    # -2 lies below all three others; -1 below two, and beside one.
    found = mislabel_auc(effects, mislabelled)
    assert found.value == pytest.approx((3 + 2.5) / 6)
    assert 0 <= found.lo <= found.value <= found.hi <= 1
    rng = np.random.default_rng(0)
    effects, mislabelled = np.round(rng.normal(size=50), 1), rng.random(50) < 0.3
    oracle = stats.mannwhitneyu(effects[~mislabelled], effects[mislabelled]).statistic / (mislabelled.sum() * (~mislabelled).sum())
    assert mislabel_auc(effects, mislabelled).value == pytest.approx(oracle)


@pytest.mark.parametrize("column", [True, False])
def test_nothing_can_be_told_apart_among_examples_that_are_all_alike(column):
    with pytest.raises(ValueError, match="an AUC needs both kinds"):
        mislabel_auc(np.zeros(3), np.full(3, column))


def test_leave_one_out_compares_effects_by_rank_and_by_size():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(20, 3))
    bent = np.exp(exact)
    assert leave_one_out(bent, exact).mean.value == pytest.approx(1)
    wanted = [stats.pearsonr(bent[:, q], exact[:, q]).statistic for q in range(3)]
    assert leave_one_out(bent, exact, "pearson").by_query == pytest.approx(wanted, abs=1e-8)


def test_the_components_that_help_a_query_most_are_those_whose_removal_lowers_it_most():
    effects = planted()
    masks = without_most_helpful(effects, 3)
    for q, mask in enumerate(masks):
        left = [effects[list(some), q].sum() for some in itertools.combinations(range(N), N - 3)]
        assert mask.sum() == N - 3
        assert effects[mask, q].sum() == pytest.approx(min(left))


def test_brittleness_counts_the_decisions_that_turn():
    intact = np.array([1.0, 2.0, -1.0, 4.0])
    after = np.array([[-1.0, 1.0, -5.0, 3.0], [0.5, -1.0, 1.0, 4.0]])
    found = brittleness(intact, after)
    assert found.fall.value == pytest.approx((intact - after).mean())
    assert found.flipped.value == pytest.approx((0.5 + 0.5 + 0) / 3)  # a query decided wrongly from the beginning has nothing to lose
    assert found.fall.lo <= found.fall.value <= found.fall.hi
    assert brittleness(-intact[:2], after[:, :2]).flipped is None


def test_removing_what_helps_makes_outputs_fall_further_than_removing_at_random():
    effects = np.abs(planted())
    intact = effects.sum(axis=0)
    chosen = outputs(without_most_helpful(effects, 4), effects)[np.arange(QUERIES), np.arange(QUERIES)][None]
    rng = np.random.default_rng(0)
    chance = outputs(held_out_subsets(N, N - 4, 20, rng, np.zeros((0, N), dtype=bool)), effects)
    assert brittleness(intact, chosen).fall.lo > brittleness(intact, chance).fall.hi


def test_a_difference_between_paired_trainings_does_not_see_what_they_share():
    rng = np.random.default_rng(0)
    shared = 100 * rng.normal(size=(3, 8))
    found = paired_difference(shared + 0.5 + 0.01 * rng.normal(size=(3, 8)), shared[None])
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert 0.45 < found.lo < found.hi < 0.55


def test_a_difference_is_no_surer_than_the_sets_that_it_is_compared_with():
    sets = np.array([-1.0, 0.0, 1.0])[:, None, None] + np.zeros((3, 2, 5))
    found = paired_difference(np.full((2, 5), 1.5), sets)
    assert found.value == pytest.approx(1.5)
    assert found.lo < 1.0
    assert found.hi > 2.0


# ---- subsets


@pytest.mark.parametrize(("n", "kept", "count"), [(12, 6, 100), (8, 4, 60), (40, 20, 50)])
def test_held_out_subsets_are_of_one_size_and_have_not_been_seen(n, kept, count):
    rng = np.random.default_rng(0)
    seen = held_out_subsets(n, kept, 10, rng, np.zeros((0, n), dtype=bool))
    found = held_out_subsets(n, kept, count, rng, seen)
    assert found.shape == (count, n)
    assert (found.sum(axis=1) == kept).all()
    assert len({row.tobytes() for row in np.concatenate([seen, found])}) == len(seen) + count


def test_no_more_subsets_are_drawn_than_there_are():
    found = held_out_subsets(5, 2, 50, np.random.default_rng(0), np.array([[1, 1, 0, 0, 0]], dtype=bool))
    assert len(found) == 9


@pytest.mark.parametrize("seeds", [2, 3, 4, 7, 25, 40])
def test_the_ceiling_compares_disjoint_halves_of_any_number_of_seeds(seeds, monkeypatch):
    seen = []
    monkeypatch.setattr("raysp.validation.data_scores.SPLITS", 10)
    from raysp.validation import data_scores as scores

    for one, other in scores._halves(seeds):
        assert len(one) == len(other) == seeds // 2
        assert not {*one} & {*other}
        seen.append((one, other))
    assert len(seen) == len(set(seen)) == {2: 1, 3: 3, 4: 3}.get(seeds, 10)
