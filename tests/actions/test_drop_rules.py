"""Which components to drop from training sets whose answer is known."""

import itertools

import numpy as np
import pytest

from raysp.actions.drop_rules import choose, read_drop_rule, redundant_pairs
from raysp.errors import UserError
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.walsh import all_masks

N = 8


def trained(masks):
    """0 and 1 teach the same, so do 1 and 2; 3 and 4 help, 5 and 6 harm each alone, but 6 is of use where 7 is."""
    x = np.asarray(masks, dtype=float)
    return 4 * np.maximum.reduce([x[:, 0], x[:, 1], x[:, 2]]) + x[:, 3] + 2 * x[:, 4] - 3 * x[:, 5] - x[:, 6] + 2 * x[:, 6] * x[:, 7]


def surrogate_of(game):
    masks = all_masks(N)
    return FourierSurrogate.from_values(masks, game(masks))


def chosen(drop=None, keep=None, *, sign=1.0, game=trained):
    found = choose(surrogate_of(lambda masks: sign * game(masks)), read_drop_rule(drop, keep, N), more_is_better=sign > 0)
    assert found.before == pytest.approx(sign * game(np.ones((1, N)))[0])
    assert found.after == pytest.approx(sign * game(found.mask[None])[0])
    return found


def best_of(kept, game=trained):
    masks = all_masks(N)
    return game(masks[masks.sum(axis=1) == kept]).max()


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["score", "loss"])
def test_only_what_harms_goes_even_if_more_may(sign):
    found = chosen("harmful:3", sign=sign)
    assert np.flatnonzero(~found.mask).tolist() == [5]
    assert "Removing more" in found.note


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["score", "loss"])
@pytest.mark.parametrize("keep", ["best:3", "best:50%", "best:6"])
def test_the_best_are_kept_together(keep, sign):
    found = chosen(keep=keep, sign=sign)
    kept = {"best:3": 3, "best:50%": 4, "best:6": 6}[keep]
    assert found.mask.sum() == kept
    assert sign * found.after == pytest.approx(best_of(kept))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["score", "loss"])
def test_of_two_that_teach_the_same_one_stays(sign):
    def pair(masks):
        x = np.asarray(masks, dtype=float)
        return 4 * np.maximum(x[:, 0], x[:, 1]) + 2 * np.maximum(x[:, 2], x[:, 3]) + x[:, 4:].sum(axis=1)

    surrogate = surrogate_of(lambda masks: sign * pair(masks))
    assert {*redundant_pairs(surrogate, more_is_better=sign > 0)} == {(0, 1), (2, 3)}
    found = chosen("redundant", sign=sign, game=pair)
    assert found.mask[:2].sum() == found.mask[2:4].sum() == 1
    assert found.mask[4:].all()
    assert found.after == pytest.approx(found.before)
    assert chosen("redundant:1", sign=sign, game=pair).mask.sum() == N - 1
    assert chosen("redundant:7", sign=sign, game=pair).mask.sum() == N - 2


def test_redundant_components_go_only_as_long_as_the_value_stays():
    def nearly(masks):
        """The first two teach the same but for 0.01, the next two but for 1."""
        x = np.asarray(masks, dtype=float)
        return 4 * np.maximum(x[:, 0], 0.9975 * x[:, 1]) + 4 * np.maximum(x[:, 2], 0.75 * x[:, 3]) + 0.3 * x[:, 2] * x[:, 3] + x[:, 4:].sum(axis=1)

    found = chosen("redundant", game=nearly)
    assert np.flatnonzero(~found.mask).tolist() == [1]
    assert np.flatnonzero(~chosen("redundant:2", game=nearly).mask).tolist() == [1, 3]


def test_of_a_chain_the_solver_drops_the_one_that_the_walk_would_keep():
    """1 covers for 0 and for 2: two pairs, and of them 0 and 2 can both go, or 1 alone."""

    def chain(masks):
        x = np.asarray(masks, dtype=float)
        return 4 * np.maximum(x[:, 0], x[:, 1]) + 3 * np.maximum(x[:, 1], x[:, 2]) + x[:, 3:].sum(axis=1)

    found = chosen("redundant", game=chain)
    assert found.after == pytest.approx(found.before)
    assert np.flatnonzero(~found.mask).tolist() in ([0, 2], [1])


def test_what_was_measured_of_a_pair_outweighs_the_surrogate():
    def pair(masks):
        x = np.asarray(masks, dtype=float)
        return 4 * np.maximum(x[:, 0], x[:, 1]) + x[:, 2:].sum(axis=1)

    surrogate = surrogate_of(pair)
    assert redundant_pairs(surrogate, {(0, 1): ("synergy", -1.0)}, more_is_better=True) == []
    assert redundant_pairs(surrogate, {(4, 5): ("redundancy", 0.5), (2, 3): ("redundancy", -0.5)}, more_is_better=True) == [(0, 1), (4, 5)]


@pytest.mark.parametrize(("error", "found"), [(0.1, True), (2.0, False)])
def test_a_pair_that_chance_may_have_made_is_no_pair(error, found):
    surrogate = surrogate_of(lambda masks: 4 * np.maximum(masks[:, 0], masks[:, 1]) + masks[:, 2:].sum(axis=1))
    doubtful = surrogate.with_error(np.full(len(surrogate), error))
    assert bool(redundant_pairs(doubtful, more_is_better=True)) == found


def test_where_nothing_harms_or_repeats_nothing_is_dropped():
    additive = surrogate_of(lambda masks: np.asarray(masks, dtype=float) @ np.arange(1.0, N + 1))
    for drop, message in (("harmful:2", "finds nothing"), ("redundant", "no two components that significantly substitute")):
        with pytest.raises(UserError, match=message):
            choose(additive, read_drop_rule(drop, None, N), more_is_better=True)


def test_harm_that_only_two_do_together_is_seen():
    def together(masks):
        x = np.asarray(masks, dtype=float)
        return x @ np.full(N, 0.5) - 3 * x[:, 2] * x[:, 6]

    found = chosen("harmful:4", game=together)
    values = {gone: together(np.array([[i not in gone for i in range(N)]]))[0] for k in range(1, 5) for gone in itertools.combinations(range(N), k)}
    assert found.after == pytest.approx(max(values.values()))
    assert found.mask.sum() == N - 1


@pytest.mark.parametrize(
    ("drop", "keep", "count"),
    [
        ("harmful:5%", None, 5),
        ("harmful:10", None, 10),
        ("redundant:10%", None, 10),
        ("redundant", None, None),
        (None, "best:50", 50),
        (None, "best:50.4%", 50),
    ],
)
def test_rules_are_parsed(drop, keep, count):
    assert read_drop_rule(drop, keep, 100).count == count


@pytest.mark.parametrize("drop", ["harmful:0.1%", "redundant:0.1%"])
def test_a_small_percentage_is_one_component(drop):
    assert read_drop_rule(drop, None, 20).count == 1


@pytest.mark.parametrize(
    ("drop", "keep", "message"),
    [
        (None, None, "alternatives"),
        ("harmful:3", "best:3", "alternatives"),
        ("harmful", None, "not a known rule"),
        ("best:3", None, "not a known rule"),
        (None, "harmful:3", "not a known rule"),
        ("harmful:0%", None, "between 0 and 100"),
        ("harmful:100%", None, "between 0 and 100"),
        ("harmful:120%", None, "between 0 and 100"),
        ("redundant:x%", None, "between 0 and 100"),
        ("harmful:2.5", None, "whole number"),
        ("harmful:-2", None, "whole number"),
        ("harmful:nan", None, "whole number"),
        ("harmful:20", None, "drops everything"),
        ("harmful:99%", None, "drops everything"),
        (None, "best:20", "drops nothing"),
    ],
)
def test_an_impossible_rule_is_reported_in_a_line(drop, keep, message):
    with pytest.raises(UserError, match=message) as error:
        read_drop_rule(drop, keep, 20)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [(0, 4, 4, 4), (0, 3.92, 3.98, 4)], ids=["copies", "nearly"])
def test_of_three_copies_two_go(values):
    def copies(masks):
        x = np.asarray(masks, dtype=float)
        return np.array(values)[x[:, :3].sum(axis=1).astype(int)] + x[:, 3:].sum(axis=1)

    assert set(redundant_pairs(surrogate_of(copies), more_is_better=True)) == {(0, 1), (0, 2), (1, 2)}
    found = chosen("redundant", game=copies)
    assert found.mask[:3].sum() == 1
    assert found.mask[3:].all()
    assert chosen("redundant:3", game=copies).mask.sum() == N - 2


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_leaves_one_that_covers_for_it(seed):
    """Chains of components of which neighbours cover for each other, each more or less."""
    weights = np.random.default_rng(seed).random(N - 1)

    def chain(masks):
        x = np.asarray(masks, dtype=float)
        return np.maximum(x[:, :-1], x[:, 1:]) @ weights + x.sum(axis=1) / 10

    pairs = redundant_pairs(surrogate_of(chain), more_is_better=True)
    for count in range(1, 5):
        mask = chosen(f"redundant:{count}", game=chain).mask
        assert 1 <= N - mask.sum() <= count
        assert all(any(mask[next(iter({*pair} - {gone}))] for pair in pairs if gone in pair) for gone in np.flatnonzero(~mask))
