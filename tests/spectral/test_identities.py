"""What must hold of transforms and indices whatever the function, and the indices against their own definitions.

Beside `test_fourier`: here stand the identities between representations, and those indices whose definition is a mean over orderings or a least-squares fit.
"""

import itertools
from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral.known_games import planted

from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import INDICES
from raysp.spectral.sets import from_tuples
from raysp.spectral.walsh import all_masks


@st.composite
def games(draw, largest=7):
    """A complete table of values."""
    n = draw(st.integers(1, largest))
    return n, np.random.default_rng(draw(st.integers(0, 2**31))).normal(size=1 << n)


def of(n, values, index, order=None, least=1):
    sets, found, _ = FourierSurrogate.from_values(all_masks(n), values).index(index, order, least)
    return dict(zip(sets.tuples(), found.tolist(), strict=True))


def every_set(n, orders):
    return [members for order in orders for members in itertools.combinations(range(n), order)]


def number(members):
    return sum(1 << i for i in members)


def derivative(values, members, base):
    """The discrete derivative of v by a set at a base without it."""
    return sum((-1) ** (len(members) - len(part)) * values[number(base) + number(part)] for part in every_subset(members))


def every_subset(members):
    return [part for size in range(len(members) + 1) for part in itertools.combinations(members, size)]


def without(n, members):
    return every_subset([i for i in range(n) if i not in members])


# ---- representations


@given(st.integers(2, 9), st.integers(0, 10_000))
def test_terms_survive_the_way_to_a_table_and_back(n, seed):
    surrogate = planted(n, min(30, 2**n - 2), seed, max_order=n)
    again = FourierSurrogate.from_values(all_masks(n), surrogate.predict(all_masks(n))).terms()
    terms = surrogate.terms()
    assert again == pytest.approx({members: terms.get(members, 0.0) for members in again}, abs=1e-9)
    assert FourierSurrogate.from_dict(n, terms).terms() == terms


@given(st.integers(2, 9), st.integers(0, 10_000))
def test_energy_of_sparse_terms_is_the_variance_of_the_table(n, seed):
    surrogate = planted(n, min(30, 2**n - 2), seed)
    values = surrogate.predict(all_masks(n))
    assert np.isclose(surrogate.energy().sum(), np.mean(values**2))
    assert np.isclose(surrogate.energy()[1:].sum(), np.var(values))


# ---- axioms


@given(games(6), st.sampled_from(list(INDICES)), st.integers(1, 4))
def test_interchangeable_components_have_equal_parts(game, index, order):
    n, values = game
    if n < 2:
        return
    swapped = all_masks(n).copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    found = of(n, values + values[swapped @ (1 << np.arange(n))], index, order)
    other = {tuple(sorted({0: 1, 1: 0}.get(i, i) for i in members)): value for members, value in found.items()}
    assert found == pytest.approx(other, abs=1e-8)


@given(games(7), st.sampled_from(["stii", "fsii"]), st.integers(1, 7))
@settings(max_examples=40)
def test_efficiency_at_every_order(game, index, order):
    n, values = game
    total = sum(of(n, values, index, min(order, n)).values())
    assert total == pytest.approx(values[-1] - values[0], abs=1e-7)


@given(games(7))
def test_values_are_the_first_order_of_their_interactions(game):
    n, values = game
    shapley, banzhaf = of(n, values, "sv"), of(n, values, "bv")
    for index in ("sii", "stii", "fsii"):
        assert of(n, values, index, 1) == pytest.approx(shapley, abs=1e-9)
    for index in ("bii", "fbii"):
        assert of(n, values, index, 1) == pytest.approx(banzhaf, abs=1e-9)


# ---- definitions, by brute force


@given(games(8))
@settings(max_examples=10, deadline=None)
def test_shapley_interactions_are_weighted_means_of_derivatives(game):
    """Grabisch and Roubens 1999: SII(T) = sum over bases of (n - |B| - |T|)! |B|! / (n - |T| + 1)! times the derivative."""
    n, values = game
    found = of(n, values, "sii", 3)
    for members in every_set(n, range(1, min(3, n) + 1)):
        t = len(members)
        bases = without(n, members)
        weights = [factorial(n - len(base) - t) * factorial(len(base)) / factorial(n - t + 1) for base in bases]
        exact = sum(weight * derivative(values, members, base) for weight, base in zip(weights, bases, strict=True))
        assert found[members] == pytest.approx(exact, abs=1e-9)


@given(games(6))
@settings(max_examples=10, deadline=None)
def test_shapley_values_are_mean_contributions_over_all_orderings(game):
    n, values = game
    found = np.zeros(n)
    orderings = list(itertools.permutations(range(n)))
    for ordering in orderings:
        steps = values[np.cumsum([0, *(1 << i for i in ordering)])]
        found[list(ordering)] += np.diff(steps)
    shapley = of(n, values, "sv")
    assert [shapley[i,] for i in range(n)] == pytest.approx((found / len(orderings)).tolist(), abs=1e-9)


@given(games(7), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_shapley_taylor_interactions_are_their_definition(game, order):
    """Sundararajan et al. 2020, equation 3: below the order derivatives at nothing, at the order k/n times their mean with weights 1/C(n-1, |B|)."""
    n, values = game
    k = min(order, n)
    for members, value in of(n, values, "stii", k).items():
        if len(members) < k:
            exact = derivative(values, members, ())
        else:
            exact = k / n * sum(derivative(values, members, base) / comb(n - 1, len(base)) for base in without(n, members))
        assert value == pytest.approx(exact, abs=1e-9)


@given(games(7), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_faithful_banzhaf_interactions_are_the_least_squares_fit(game, order):
    """Tsai et al. 2023: the Möbius polynomial of that order nearest to v on uniform masks."""
    n, values = game
    sets = every_set(n, range(min(order, n) + 1))
    design = np.stack([all_masks(n)[:, list(members)].all(axis=1) for members in sets], axis=1).astype(float)
    fit = np.linalg.lstsq(design, values, rcond=None)[0]
    assert of(n, values, "fbii", min(order, n), 0) == pytest.approx(dict(zip(sets, fit.tolist(), strict=True)), abs=1e-8)


@given(games(7), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_faithful_shapley_interactions_are_the_weighted_fit_that_is_right_at_both_ends(game, order):
    """Tsai et al. 2023: weights 1 / (C(n, |m|) |m| (n - |m|)), and v(nothing), v(all) exactly."""
    n, values = game
    sets = every_set(n, range(1, min(order, n) + 1))
    masks = all_masks(n)
    design = np.stack([masks[:, list(members)].all(axis=1) for members in sets], axis=1).astype(float)
    inner = masks[1:-1]
    sizes = inner.sum(axis=1)
    weights = 1.0 / (np.array([comb(n, size) for size in sizes]) * sizes * (n - sizes)) if len(inner) else np.zeros(0)
    system = design[1:-1].T @ (weights[:, None] * design[1:-1])
    # Lagrange: all interactions add up to v(all) - v(nothing).
    bordered = np.block([[system, np.ones((len(sets), 1))], [np.ones((1, len(sets))), np.zeros((1, 1))]])
    right = np.append(design[1:-1].T @ (weights * (values[1:-1] - values[0])), values[-1] - values[0])
    fit = np.linalg.lstsq(bordered, right, rcond=None)[0][:-1]
    if len(sets) <= len(inner) + 1:  # with fewer masks than interactions the fit is not unique
        assert of(n, values, "fsii", min(order, n)) == pytest.approx(dict(zip(sets, fit.tolist(), strict=True)), abs=1e-6)


# ---- large sparse functions


@pytest.fixture(scope="module")
def large():
    """10,000 terms of order up to 5 over 1,000 components, and their Möbius form by a plain loop, listed by component."""
    rng = np.random.default_rng(0)
    n = 1000
    drawn = {tuple(sorted(rng.choice(n, rng.integers(1, 6), replace=False).tolist())) for _ in range(10_000)}
    drawn |= {(1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2, 3), (1, 2, 6), (1,), (2, 3), (1, 2)}
    sets = from_tuples(n, drawn)
    surrogate = FourierSurrogate(sets, rng.normal(size=len(sets)))
    dividends: dict[tuple[int, ...], float] = {}
    for members, value in surrogate.terms().items():
        for part in every_subset(members):
            dividends[part] = dividends.get(part, 0.0) + (-2) ** len(part) * value
    holding: dict[int, list[tuple[frozenset[int], float]]] = {}
    for members, value in dividends.items():
        for i in members:
            holding.setdefault(i, []).append((frozenset(members), value))
    return surrogate, holding


def by_formula(index, k, t, s):
    """The weight of the dividend of a set of order s in the index of a subset of order t."""
    if index == "mobius" or (index in {"fbii", "fsii"} and s <= k) or (index == "stii" and t < k):
        return float(s == t)
    return {
        "sii": lambda: 1 / (s - t + 1),
        "sv": lambda: 1 / s,
        "stii": lambda: 1 / comb(s, k),
        "bii": lambda: 2.0 ** (t - s),
        "bv": lambda: 2.0 ** (t - s),
        "wbii": lambda: 2.0 ** (t - s),  # at P(keep) = 1/2
        "fbii": lambda: (-1) ** (k - t) * 2.0 ** (t - s) * comb(s - t - 1, k - t),
        "fsii": lambda: (-1) ** (k - t) * t / (k + t) * comb(k, t) * comb(s - 1, k) / comb(s + k - 1, k + t),
        "fourier": lambda: (-1) ** t * 2.0**-s,
    }[index]()


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("index", [name for name in INDICES if name != "additivity"])
def test_thousands_of_terms_convert_rightly(large, index, order):
    surrogate, holding = large
    sets, values, _ = surrogate.index(index, order, 1)
    listed = sets.tuples()
    found = dict(zip(listed, values.tolist(), strict=True))
    sample = listed[:: len(sets) // 100]
    for members in {*sample, *(wanted for wanted in [(1,), (2,), (1, 2), (1, 2, 3), (1, 2, 3, 4, 5)] if wanted in found)}:
        above = [(len(other), value) for other, value in holding[members[0]] if other.issuperset(members)]
        exact = sum(by_formula(index, order, len(members), size) * value for size, value in above)
        assert found[members] == pytest.approx(exact, abs=1e-9)


def test_thousands_of_terms_have_their_deviations_from_additivity(large):
    surrogate, _ = large
    sets, values, _ = surrogate.index("additivity", 3, 1)
    found = dict(zip(sets.tuples(), values.tolist(), strict=True))
    for members in [(1,), (1, 2), (2, 3), (1, 2, 3), (1, 2, 6), *sets.tuples()[:: len(sets) // 20]]:
        masks = np.ones((1 << len(members), surrogate.n), dtype=bool)
        masks[:, list(members)] = all_masks(len(members)) ^ True
        removed = surrogate.predict(masks)  # row r removes the set numbered r
        exact = -sum((-1) ** (len(members) - row.bit_count()) * removed[row] for row in range(len(removed)))
        assert found[members] == pytest.approx(exact, abs=1e-8)
