"""Attribution methods scored on planted retrainings: each query's outputs are a known function of the subset plus noise that is independent per training."""

import numpy as np
import pytest

from raysp.actions.lds_methods import (
    Effects,
    Plan,
    Surrogates,
    Trained,
    leave_one_out_scores,
    linear_scores,
    mislabel_scores,
    removals,
    score,
)
from raysp.explorers import ProxySPEX
from raysp.explorers.fitting import fit_singles
from raysp.sampling.draws import uniform_masks
from raysp.validation.data_scores import held_out_subsets

N, QUERIES = 12, 3
NOTHING = np.zeros((0, N), dtype=bool)


def additive(masks):
    """Queries that components help or harm each alone."""
    return np.asarray(masks, dtype=float) @ np.random.default_rng(1).normal(size=(N, QUERIES)) - 0.2


def covered(masks):
    """Each query is taught by either of two components, by 4 and 5 only together, and a little by the others."""
    x = np.asarray(masks, dtype=float)
    pairs = [np.maximum(x[:, 2 * q], x[:, 2 * q + 1]) for q in range(QUERIES)]
    return np.stack([3 * pair + 4 * x[:, 6] * x[:, 7] + 0.3 * x[:, 8:].sum(axis=1) - 3 for pair in pairs], axis=1)


def trained(game, masks, seeds=2, noise=0.3):
    rng = np.random.default_rng(9)
    return Trained(masks, np.stack([game(masks) + noise * rng.normal(size=(len(masks), QUERIES)) for _ in range(seeds)]))


def methods(game, budget=200):
    """What a run of so many trainings makes of it, with interactions and without, and what exact gradients at the end would."""
    masks = uniform_masks(N, budget, np.random.default_rng(0))
    outputs = trained(game, masks, 1).outputs[0]
    interactions = [ProxySPEX(max_order=2, proxy="linear").fit(masks, outputs[:, q]).findings.surrogate for q in range(QUERIES)]
    singles = [fit_singles(masks, outputs[:, q]) for q in range(QUERIES)]
    ends = np.concatenate([np.ones((1, N), dtype=bool), ~np.eye(N, dtype=bool)])
    values = game(ends)
    return [Surrogates("proxyspex", interactions), Surrogates("singles", singles), Effects("influence", values[0] - values[1:])]


@pytest.fixture(scope="module")
def by_game():
    return {game.__name__: methods(game) for game in (additive, covered)}


def heldout(count=60):
    return held_out_subsets(N, N // 2, count, np.random.default_rng(5), NOTHING)


def told(rows, metric, k=None):
    return {row.method: row for row in rows if row.metric == metric and row.query is None and row.k == k}


def test_where_effects_add_up_all_methods_foretell_as_well_as_can_be(by_game):
    masks = heldout()
    rows = linear_scores(by_game["additive"], masks, trained(additive, masks))
    scores, floors = told(rows, "lds"), told(rows, "lds_floor")
    attainable = told(rows, "ceiling_attainable")[None]
    for method in ("proxyspex", "singles", "influence"):
        assert scores[method].value > 0.9
        assert scores[method].value <= attainable.hi + 0.02
        assert floors[method].hi < scores[method].lo
    assert 0 < told(rows, "ceiling_halves")[None].value < told(rows, "ceiling_averaged")[None].value < attainable.value < 1


def test_where_components_cover_for_one_another_interactions_lead(by_game):
    masks = heldout()
    scores = told(linear_scores(by_game["covered"], masks, trained(covered, masks)), "lds")
    assert scores["proxyspex"].value > scores["singles"].value + 0.02
    assert scores["singles"].value > scores["influence"].value + 0.05


def test_each_query_has_its_score_and_their_mean_is_the_method_s(by_game):
    masks = heldout()
    rows = linear_scores(by_game["additive"], masks, trained(additive, masks))
    mine = [row for row in rows if (row.metric, row.method) == ("lds", "singles")]
    assert [row.query for row in mine] == [None, 0, 1, 2]
    assert mine[0].value == pytest.approx(np.mean([row.value for row in mine[1:]]))


def test_one_seed_has_a_score_and_no_ceiling(by_game):
    masks = heldout()
    rows = linear_scores(by_game["additive"], masks, trained(additive, masks, seeds=1))
    assert told(rows, "lds")
    assert not any(row.metric.startswith("ceiling") for row in rows)


def test_a_query_whose_outputs_do_not_vary_is_left_out_and_said_so(by_game):
    masks = heldout()
    outputs = trained(additive, masks).outputs
    outputs[:, :, 1] = 0.5
    rows = linear_scores(by_game["additive"], masks, Trained(masks, outputs))
    assert [row.query for row in rows if (row.metric, row.method) == ("lds", "singles")] == [None, 0, 2]
    assert told(rows, "lds")["singles"].note == "1 of 3 queries are left out because their outputs do not vary"


def test_single_ablations_are_foretold_and_their_size_too(by_game):
    chosen = np.array([0, 3, 5, 7, 9])
    plan = Plan(heldout(10), chosen, {})
    assert len(plan.masks()) == 10 + 1 + 5
    rows = leave_one_out_scores(by_game["additive"], chosen, trained(additive, plan.masks(), noise=0.0))
    for metric in ("leave_one_out", "leave_one_out_pearson"):
        assert told(rows, metric)["influence"].value == pytest.approx(1)
        assert told(rows, metric)["proxyspex"].value > 0.9


def test_the_solver_removes_both_of_two_that_cover_for_each_other(by_game):
    """No single ablation of the two shows anything, so that gradients and leave-one-out never find them."""
    found = by_game["covered"]
    plan = Plan(heldout(10), np.zeros(0, dtype=np.intp), removals(found, (2, 4), N, np.random.default_rng(3)))
    for q in range(QUERIES):
        assert not plan.removals["proxyspex", 4][q, 2 * q : 2 * q + 2].any()
        assert plan.removals["influence", 2][q, 2 * q : 2 * q + 2].all()
    assert all((~masks).sum(axis=1).tolist() == [k] * len(masks) for (_, k), masks in plan.removals.items())
    rows = score(found, plan, trained(covered, plan.masks(), noise=0.0), margins=True)
    for k in (2, 4):
        falls, flips = told(rows, "brittleness_drop", k), told(rows, "flip_rate", k)
        assert set(falls) == set(flips) == {"proxyspex", "singles", "influence", "random"}
        assert falls["proxyspex"].value >= falls["influence"].value > falls["random"].value
        assert 0 <= flips["random"].value <= flips["proxyspex"].value <= 1
    assert told(rows, "brittleness_drop", 4)["proxyspex"].value > told(rows, "brittleness_drop", 4)["influence"].value + 1
    assert told(rows, "flip_rate", 4)["proxyspex"].value == 1
    assert not any(row.metric == "flip_rate" for row in score(found, plan, trained(covered, plan.masks()), margins=False))


def test_mislabelled_examples_are_those_that_harm():
    """Twelve components of two examples each; the labels of 3 and 4 are wrong, and harm the queries of their own label only."""
    effects = np.full((N, QUERIES), 0.5)
    effects[[3, 4], 0] = -1.0
    effects[[3, 4], 1:] = 1.5
    component_of = np.repeat(np.arange(N), 2)
    mislabelled = np.isin(component_of, (3, 4))
    own = np.zeros((2 * N, QUERIES), dtype=bool)
    own[:20, 0], own[20:, 1] = True, True
    rows = mislabel_scores([Effects("influence", effects)], component_of, mislabelled, own)
    assert told(rows, "mislabel_auc")["influence"].value == 0.0
    assert told(rows, "mislabel_auc_own_label")["influence"].value == 1.0


def test_a_mask_that_nobody_trained_on_has_no_outputs():
    with pytest.raises(ValueError, match="1 of 2 masks were not trained on"):
        trained(additive, np.ones((1, N), dtype=bool)).mean(np.stack([np.ones(N, dtype=bool), np.zeros(N, dtype=bool)]))
