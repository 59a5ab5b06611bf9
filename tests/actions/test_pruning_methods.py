"""Choosing what to leave out of games whose answer is known: what each method finds, and its values on prompts that it has not seen."""

import itertools

import numpy as np
import pytest

from raysp.actions.pruning_methods import RunEvidence, compare_methods
from raysp.errors import UserError
from raysp.masks import pack
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.walsh import all_masks

N, PROMPTS = 6, 40
LAYERS = (0, 0, 0, 1, 1, 1)


def redundant(masks):
    """Either of the first two does for both and is worth 2; each of the others is worth 0.8."""
    x = np.asarray(masks, dtype=float)
    return 2 * np.maximum(x[:, 0], x[:, 1]) + 0.8 * x[:, 2:].sum(axis=1)


def graded(masks):
    """Each component is worth its number, the first -1."""
    return np.asarray(masks, dtype=float) @ np.array([-1.0, 1, 2, 3, 4, 5])


def surrogate_of(game):
    masks = all_masks(N)
    return FourierSurrogate.from_values(masks, game(masks))


def known(game, *, more_is_better=True, surrogate=None, layers=LAYERS, seed=0):
    """What a run would know of a game when it has measured all of it."""
    truth = surrogate_of(game)
    near = np.concatenate([np.ones((1, N), dtype=bool), ~np.eye(N, dtype=bool)])
    values = game(near)
    return RunEvidence(surrogate or truth, truth.take(truth.sets.orders <= 1), values[0] - values[1:], layers, more_is_better, seed)


def prompts(game, seed):
    """Each prompt's value: the game's, moved by a number of the prompt's own."""
    moves = np.random.default_rng(seed).normal(size=PROMPTS)
    return lambda masks: game(masks)[:, None] + moves


def mean(by_prompt):
    return lambda masks: by_prompt(masks).mean(axis=1)


def compared(game, keep=4 / 6, *, per_layer=False, draws=8, seed=0, train=None, heldout=None, **told):
    train, heldout = train or mean(prompts(game, 1)), heldout or prompts(game, 2)
    rows = compare_methods(known(game, seed=seed, **told), train, heldout, keep, per_layer=per_layer, draws=draws)
    return {row.method: row for row in rows}


def allowed(gone):
    """All masks that leave so many out."""
    masks = all_masks(N)
    return masks[masks.sum(axis=1) == N - gone]


def test_interactions_know_that_one_of_two_is_enough_where_singles_do_not():
    """The LASSO takes either of the two for worth 1 and drops two of the others; alone, neither of the two seems to be worth anything."""
    found = compared(redundant)
    assert redundant(found["interactions"].mask[None])[0] == pytest.approx(redundant(allowed(2)).max())
    assert found["interactions"].mask[:2].sum() == 1
    assert found["singles"].mask[:2].all()
    assert not found["top_singles"].mask[:2].any()
    for score in ("train", "heldout"):
        kept = {method: getattr(row, score) for method, row in found.items()}
        assert kept["interactions"] == pytest.approx(kept["intact"] - 0.8)
        assert kept["singles"] == pytest.approx(kept["intact"] - 1.6)
        assert kept["top_singles"] == pytest.approx(kept["intact"] - 2.0)


def test_a_surrogate_that_is_wrong_does_not_do_worse_than_singles():
    """It proposes to drop what is worth most; measured on the run's prompts, its proposal loses."""
    found = compared(graded, surrogate=surrogate_of(lambda masks: -graded(masks)))
    assert found["interactions"].mask.tolist() == [True, True, True, True, False, False]
    assert found["refined"].mask.tolist() == found["singles"].mask.tolist() == [False, False, True, True, True, True]


def test_exact_swaps_better_what_was_proposed_within_the_evaluations_given():
    """Singles propose to keep both of two that do the same; swaps find that one will do."""
    found = compared(redundant, draws=40)
    best = redundant(allowed(2)).max()
    assert redundant(found["singles_refined"].mask[None])[0] == pytest.approx(best)
    assert redundant(found["singles"].mask[None])[0] < best
    assert [found[method].evaluations for method in ("interactions", "singles", "top_singles", "best_of_n")] == [0, 0, 0, 40]
    assert 0 < found["refined"].evaluations <= 40
    assert compared(redundant, draws=1)["refined"].evaluations == 1


def test_swaps_stay_within_a_layer_where_layers_lose_the_same_share():
    found = compared(graded, 2 / 3, per_layer=True, surrogate=surrogate_of(lambda masks: -graded(masks)), draws=60)
    assert found["refined"].train >= found["singles"].train
    assert [found["refined"].mask[:3].sum(), found["refined"].mask[3:].sum()] == [2, 2]


def test_masks_that_keep_most_components_lead_to_the_same_choice():
    """A surrogate in the basis of another P(keep) is the same function; its singles are those near the intact input."""
    found = compared(redundant, surrogate=surrogate_of(redundant).rebased(0.9))
    assert found["interactions"].mask.tolist() == compared(redundant)["interactions"].mask.tolist()


@pytest.mark.parametrize(("keep", "kept"), [(1 / 6, 1), (0.5, 3), (4 / 6, 4), (5 / 6, 5)])
def test_a_share_is_so_many_components_for_every_method(keep, kept):
    found = compared(redundant, keep)
    assert set(found) == {"interactions", "refined", "singles", "singles_refined", "top_singles", "best_of_n", "intact"}
    for method, row in found.items():
        assert row.mask.sum() == (N if method == "intact" else kept), method
        assert row.keep == keep
        assert row.prompts == PROMPTS


@pytest.mark.parametrize(("keep", "kept"), [(1 / 3, 1), (2 / 3, 2)])
def test_per_layer_keeps_the_same_share_of_every_layer(keep, kept):
    for game in (graded, redundant):
        found = compared(game, keep, per_layer=True)
        for method, row in found.items():
            assert [row.mask[:3].sum(), row.mask[3:].sum()] == ([3, 3] if method == "intact" else [kept, kept]), method
    assert compared(graded, keep)["interactions"].mask[:3].sum() < kept  # what is worth most lies in the second layer


def test_layers_of_other_sizes_lose_their_own_share():
    found = compared(graded, 0.5, per_layer=True, layers=(7, 7, 7, 7, 9, 9))
    for method in ("interactions", "singles", "top_singles"):
        assert found[method].mask.tolist() == [False, False, True, True, False, True], method


def test_a_value_of_which_less_is_better_is_made_small():
    gain = compared(redundant)
    loss = compared(lambda masks: -redundant(masks), more_is_better=False)
    for method in ("interactions", "singles", "top_singles"):
        assert loss[method].mask.tolist() == gain[method].mask.tolist(), method
    assert loss["interactions"].train < loss["singles"].train < loss["top_singles"].train
    assert compared(lambda masks: -redundant(masks), more_is_better=False, draws=400)["best_of_n"].mask[:2].sum() == 1


@pytest.mark.parametrize("keep", [0.01, 0.99, 0.0, 1.0, 1.5, -0.5])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_share_that_keeps_nothing_or_everything_is_a_mistake(keep, per_layer):
    with pytest.raises(UserError, match=r"keep: .* of 6 components; give a share that keeps some of them"):
        compared(redundant, keep, per_layer=per_layer)


def test_the_interval_holds_the_mean_over_held_out_prompts_and_narrows_with_their_number():
    spread = np.random.default_rng(0).normal(size=1600)

    def noisy(count):
        return lambda masks: graded(masks)[:, None] + spread[:count]

    few, many = (compared(graded, heldout=noisy(count)) for count in (100, 1600))
    for found in (few, many):
        for row in found.values():
            assert row.lo < row.heldout < row.hi
    for method, row in few.items():
        assert row.heldout == pytest.approx(graded(row.mask[None])[0] + spread[:100].mean())
        assert row.hi - row.lo == pytest.approx(2 * 1.96 * spread[:100].std() / 10, rel=0.1)
        assert 3 < (row.hi - row.lo) / (many[method].hi - many[method].lo) < 5


def test_the_best_of_the_random_subsets_is_the_best_on_the_runs_own_prompts():
    """So many draws cover every subset; held-out prompts do not influence the choice."""
    best = allowed(2)[np.argmax(redundant(allowed(2)))]
    found = compared(redundant, draws=400, heldout=prompts(lambda masks: -redundant(masks), 2))
    assert found["best_of_n"].train == pytest.approx(prompts(redundant, 1)(best[None]).mean())
    assert found["best_of_n"].mask.sum() == 4


def test_of_random_subsets_all_that_are_allowed_are_drawn():
    seen = set()

    def train(masks):
        seen.update(map(bytes, pack(masks)))
        return redundant(masks)

    compared(redundant, draws=400, train=train, per_layer=True)
    drawn = {bytes(pack(mask[None])[0]) for mask in allowed(2) if mask[:3].sum() == 2}
    assert len(drawn) == 9
    assert seen == drawn | {bytes(pack(np.ones((1, N), dtype=bool))[0])}


def test_the_same_seed_chooses_the_same_and_another_draws_others():
    one, again = compared(graded, draws=2), compared(graded, draws=2)
    for method, row in one.items():
        assert np.array_equal(row.mask, again[method].mask)
        assert (row.train, row.heldout, row.lo, row.hi) == (again[method].train, again[method].heldout, again[method].lo, again[method].hi)
    others = [compared(graded, draws=1, seed=seed)["best_of_n"].mask for seed in range(5)]
    assert any(not np.array_equal(one, other) for one, other in itertools.combinations(others, 2))


def test_where_every_layer_has_one_component_none_can_take_a_share():
    with pytest.raises(UserError, match=r"per_layer: .*each layer has only one component; omit it"):
        compared(graded, per_layer=True, layers=tuple(range(N)))
