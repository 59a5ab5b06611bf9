"""Best subsets against brute force over everything that is allowed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral.known_games import planted

from raysp.errors import UserError
from raysp.spectral.flips import Flips
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.removals import measured_removals
from raysp.spectral.selection import best_subset, removal_curve
from raysp.spectral.walsh import all_masks


def brute(surrogate, r, mode, *, keep=False, at_most=False, allowed=lambda _: True):
    """The best objective there is, None where nothing is allowed."""
    n = surrogate.n
    sizes = range(r + 1) if at_most else [r]
    choices = [members for size in sizes for members in itertools.combinations(range(n), size) if allowed(members)]
    if not choices:
        return None
    masks = np.full((len(choices), n), not keep)
    for row, members in enumerate(choices):
        masks[row, list(members)] = keep
    change = surrogate.predict(masks) - surrogate.predict(np.full((1, n), not keep))
    return float({"change": np.abs(change), "increase": change, "decrease": -change}[mode].max())


@st.composite
def questions(draw):
    n = draw(st.integers(2, 9))
    seed = draw(st.integers(0, 10_000))
    surrogate = planted(n, min(25, 2**n - 2), seed, max_order=min(4, n))
    options = {"keep": draw(st.booleans()), "at_most": draw(st.booleans())}
    return surrogate, draw(st.integers(0, n)), draw(st.sampled_from(["change", "increase", "decrease"])), options, seed


def limits_of(n, seed):
    """Random costs and groups, as options and as a test of a choice."""
    rng = np.random.default_rng(seed)
    costs, budget = rng.integers(0, 5, n).astype(float), float(rng.integers(1, 3 * n))
    groups, limits = rng.integers(0, 3, n).tolist(), {}
    limits = {label: int(rng.integers(0, 4)) for label in set(groups)}

    def allowed(members):
        return costs[list(members)].sum() <= budget and all(sum(groups[i] == label for i in members) <= most for label, most in limits.items())

    return {"costs": costs, "budget": budget, "groups": groups, "group_limits": limits}, allowed


@pytest.mark.parametrize("method", ["enumerate", "milp"])
@given(question=questions())
@settings(max_examples=60, deadline=None)
def test_nothing_is_better_by_brute_force(method, question):
    surrogate, r, mode, options, _ = question
    found = best_subset(surrogate, r, mode, **options, method=method)
    assert found.exact
    assert found.gap == 0
    assert found.objective == found.bound == pytest.approx(brute(surrogate, r, mode, **options), abs=1e-6)


@pytest.mark.parametrize("method", ["enumerate", "milp"])
@given(question=questions())
@settings(max_examples=60, deadline=None)
def test_budgets_and_groups_are_kept(method, question):
    surrogate, r, mode, options, seed = question
    limits, allowed = limits_of(surrogate.n, seed)
    best = brute(surrogate, r, mode, **options, allowed=allowed)
    if best is None:
        with pytest.raises(UserError, match=r"r: .* cannot be chosen within the budgets"):
            best_subset(surrogate, r, mode, **options, **limits, method=method)
        return
    found = best_subset(surrogate, r, mode, **options, **limits, method=method)
    assert found.objective == pytest.approx(best, abs=1e-6)
    assert allowed(found.components)
    assert found.exact


@given(question=questions(), limited=st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_gap_of_a_search_is_a_true_bound(question, limited):
    surrogate, r, mode, options, seed = question
    limits, allowed = limits_of(surrogate.n, seed) if limited else ({}, lambda _: True)
    best = brute(surrogate, r, mode, **options, allowed=allowed)
    if best is None:
        return
    found = best_subset(surrogate, r, mode, **options, **limits, method="local")
    assert found.objective <= best + 1e-6 <= found.bound + 2e-6
    assert found.gap == pytest.approx(found.bound - found.objective)
    assert found.exact == (found.gap == 0)
    assert allowed(found.components)
    assert len(found.components) == r or options["at_most"]


@given(question=questions())
@settings(max_examples=50, deadline=None)
def test_the_value_is_that_of_the_mask(question):
    surrogate, r, mode, options, _ = question
    found = best_subset(surrogate, r, mode, **options)
    mask = np.full((1, surrogate.n), not options["keep"])
    mask[0, list(found.components)] = options["keep"]
    assert found.value == pytest.approx(surrogate.predict(mask)[0])


@given(question=questions(), keep=st.booleans())
@settings(max_examples=50, deadline=None)
def test_flips_and_their_moves_are_the_function(question, keep):
    surrogate, *_, seed = question
    flips = Flips.of(surrogate, keep=keep, sign=-1.0)
    choices = all_masks(surrogate.n)
    gains = surrogate.predict(flips.masks(choices[:1])) - surrogate.predict(flips.masks(choices))
    assert np.allclose((flips.incidence @ choices.T % 2).T @ flips.weights, gains)
    for slopes, constant in flips.linear_bounds():
        assert np.all(choices @ slopes + constant >= gains - 1e-9)
    at = seed % len(choices)
    moves = flips.moves(choices[at])
    for a, b in itertools.combinations(range(surrogate.n + 1), 2):
        number = at ^ (1 << a) ^ (0 if b == surrogate.n else 1 << b)
        assert moves[a, b] == moves[b, a] == pytest.approx(gains[number] - gains[at], abs=1e-9)


def test_scale_does_not_matter():
    surrogate = planted(16, 60, 3)
    tiny = FourierSurrogate(surrogate.sets, surrogate.coefficients * 1e-7)
    whole, small = (best_subset(each, 4, method="milp") for each in (surrogate, tiny))
    assert small.components == whole.components
    assert small.exact


def test_the_basis_does_not_matter():
    surrogate = planted(16, 60, 3)
    biased = surrogate.rebased(0.85)
    for method in ("enumerate", "milp"):
        for keep in (False, True):
            here, there = (best_subset(each, 4, keep=keep, method=method) for each in (surrogate, biased))
            assert there.objective == pytest.approx(here.objective)
            assert there.components == here.components


def test_a_search_cut_short_states_its_gap():
    surrogate = planted(80, 600, 0)
    found = best_subset(surrogate, 30, "increase", time_limit=0.05)
    assert not found.exact
    assert 0 < found.gap < np.inf
    assert "limit" in found.note
    assert len(found.components) == 30
    assert "greedy" in best_subset(surrogate, 5, method="local").note


@pytest.mark.parametrize("options", [{}, {"at_most": True}, {"keep": True}, {"groups": [0, 1] * 12, "group_limits": 1}])
def test_few_choices_among_many_components_are_all_compared(options):
    """A programme of so many terms would not end in time; 2,024 sets of three are soon looked at."""
    surrogate = planted(24, 600, 2)
    found = best_subset(surrogate, 3.0 if not options else 3 if "groups" not in options else 2, "increase", **options)
    assert found.exact
    assert "compared" in found.note
    sizes = range(4) if "at_most" in options else (2,) if "groups" in options else (3,)
    sets = [set(members) for size in sizes for members in itertools.combinations(range(24), size)]
    if "groups" in options:
        sets = [members for members in sets if len({i % 2 for i in members}) == len(members)]
    masks = np.array([[(i in members) == bool(options.get("keep")) for i in range(24)] for members in sets])
    end = surrogate.predict(np.full((1, 24), not options.get("keep")))[0]
    assert found.objective == pytest.approx(surrogate.predict(masks).max() - end)


def test_a_relative_gap_is_accepted():
    found = best_subset(planted(30, 150, 1), 5, "increase", mip_gap=0.5, method="milp")
    assert found.bound <= found.objective * 1.5 + 2 * found.objective  # HiGHS measures the gap against its own best


def test_nothing_removed_changes_nothing():
    surrogate = planted(20, 50, 0)
    for method in ("milp", "local"):
        found = best_subset(surrogate, 0, method=method)
        assert found.components == ()
        assert found.objective == pytest.approx(0, abs=1e-12)
        assert found.exact


def test_a_constant_is_no_trouble():
    found = best_subset(FourierSurrogate.from_dict(20, {(): 2.0}), 3)
    assert (len(found.components), found.value, found.objective, found.exact) == (3, 2.0, 0.0, True)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((21,), {}, "r: 21 .*0 to 20"),
        ((-1,), {}, "r: -1"),
        ((2, "up"), {}, "mode: 'up'.*increase"),
        ((2,), {"method": "magic"}, "method: 'magic'.*milp"),
        ((2,), {"time_limit": 0.0}, "time_limit"),
        ((2,), {"costs": np.ones(20)}, "budget: is missing"),
        ((2,), {"costs": np.ones(19), "budget": 3}, r"costs: \(1, 19\)"),
        ((2,), {"costs": -np.ones(20), "budget": 3}, "costs: .*negative"),
        ((2,), {"groups": [0] * 20}, "group_limits: is missing"),
        ((2,), {"groups": [0] * 3, "group_limits": 1}, "groups: 3 labels do not match 20"),
        ((2,), {"groups": [0] * 20, "group_limits": {7: 1}}, "group_limits: 7 is not a group"),
        ((5,), {"groups": [0] * 20, "group_limits": 4}, "r: 5 .*cannot be chosen"),
        ((2,), {"method": "enumerate", "keep": True, "costs": np.ones(20), "budget": 1}, "r: 2 .*cannot be chosen"),
    ],
)
def test_what_cannot_be_is_reported(arguments, options, message):
    with pytest.raises(UserError, match=message):
        best_subset(planted(20, 40, 0), *arguments, **options)


def test_a_removal_curve_has_a_row_a_size():
    surrogate = planted(16, 60, 5)
    curve = removal_curve(surrogate)
    assert curve["r"].to_pylist() == [3, 4, 5, 6, 7]
    assert all(curve["exact"].to_pylist())
    intact = surrogate.predict(np.ones((1, 16), dtype=bool))[0]
    for r, change, share in zip(*(curve[name].to_pylist() for name in ("r", "change", "share")), strict=True):
        assert change == pytest.approx(brute(surrogate, r, "change"), abs=1e-6)
        assert share == pytest.approx(change / abs(intact))
    assert removal_curve(planted(4, 8, 0))["r"].to_pylist() == [3, 4]
    assert removal_curve(surrogate, [1, 2], mode="decrease")["r"].to_pylist() == [1, 2]


def surprising(surrogate, seed):
    """The surrogate's values with effects of triples beyond, of which the surrogate knows nothing, and a list of how many masks were asked at a time."""
    rng = np.random.default_rng(seed)
    hidden = [rng.choice(surrogate.n, 3, replace=False) for _ in range(60)]
    weights, asked = rng.normal(size=60) * surrogate.predict(rng.random((200, surrogate.n)) < 0.5).std(), []

    def measure(masks):
        asked.append(len(masks))
        return surrogate.predict(masks) + np.stack([(~masks[:, members]).all(axis=1) for members in hidden], axis=1) @ weights

    return measure, asked


@pytest.mark.parametrize("mode", ["increase", "decrease"])
def test_measured_removals_are_at_least_as_good_as_those_of_the_surrogate(mode):
    sign = 1.0 if mode == "increase" else -1.0
    better = 0
    for seed in range(6):
        surrogate = planted(14, 60, seed)
        measure, asked = surprising(surrogate, seed)
        table = measured_removals(surrogate, measure, [7, 3, 5, 4], mode)
        assert table["r"].to_pylist() == [3, 4, 5, 7]
        assert sum(asked) == 1 + sum(table["evaluations"].to_pylist())
        assert max(table["evaluations"].to_pylist()) <= 8
        for row in table.to_pylist():
            mask = np.ones((1, 14), dtype=bool)
            mask[0, row["components"]] = False
            assert len(row["components"]) == row["r"]
            assert row["value"] == pytest.approx(measure(mask)[0], abs=1e-12)
            assert row["predicted"] == pytest.approx(surrogate.predict(mask)[0], abs=1e-12)
            alone = np.ones((1, 14), dtype=bool)
            alone[0, list(best_subset(surrogate, row["r"], mode).components)] = False
            gain = sign * (row["value"] - measure(alone)[0])
            assert gain >= -1e-9
            better += gain > 1e-9
    assert better > 6


def test_measured_removals_of_a_surrogate_that_is_right_are_its_optima():
    surrogate = planted(12, 40, 3)
    table = measured_removals(surrogate, surrogate.predict, range(1, 13))
    ends = best_subset(surrogate, 12).value > surrogate.predict(np.ones((1, 12), dtype=bool))[0]
    assert table["change"].to_pylist() == pytest.approx([brute(surrogate, r, "increase" if ends else "decrease") for r in range(1, 13)], abs=1e-6)
    assert measured_removals(planted(4, 8, 0), planted(4, 8, 0).predict)["r"].to_pylist() == [3, 4]
    assert measured_removals(surrogate, surrogate.predict, []).num_rows == 0
    with pytest.raises(UserError, match="tries: 1 leaves nothing to compare"):
        measured_removals(surrogate, surrogate.predict, [2], tries=1)
