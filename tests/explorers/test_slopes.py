"""Learning from slopes within the fit, and buying them."""

import numpy as np
import pytest
from spectral.known_games import exact_slopes, planted

from raysp.explorers import ProxySPEX, r_squared
from raysp.explorers.fitting import fit_proxy
from raysp.explorers.proxies import PROXIES
from raysp.explorers.purchases import LEAST_TRIAL, Purchases, relative_error
from raysp.explorers.samples import Sample
from raysp.explorers.slopes import sloped

N = 24


@pytest.fixture(scope="module")
def game():
    return planted(N, 40, 3)


def drawn(count, seed=0):
    return np.random.default_rng(seed).random((count, N)) < 0.5


def noise(shape, seed=9):
    return np.random.default_rng(seed).normal(size=shape)


def sample(game, count, slopes=None, max_order=4):
    masks = drawn(count)
    return Sample(masks, game.predict(masks), max_order, slopes=slopes)


def score(game, surrogate):
    fresh = drawn(500, 1)
    return r_squared(game.predict(fresh), surrogate.predict(fresh))


# ---- the fit


@pytest.mark.parametrize("count", [20, 60])
def test_slopes_make_few_masks_enough(game, count):
    told = sample(game, count, exact_slopes(game, drawn(count)))
    with_slopes, without = fit_proxy(told, PROXIES["auto"]), fit_proxy(sample(game, count), PROXIES["auto"])
    assert score(game, with_slopes.surrogate) > score(game, without.surrogate) + 0.2
    assert with_slopes.r2 > without.r2


@pytest.mark.parametrize("count", [40, 150])
def test_useless_slopes_change_nothing(game, count):
    alone = fit_proxy(sample(game, count), PROXIES["auto"])
    misled = fit_proxy(sample(game, count, noise((count, N))), PROXIES["auto"])
    assert score(game, misled.surrogate) == pytest.approx(score(game, alone.surrogate), abs=0.02)


def test_folds_never_see_the_slopes_and_values_of_held_out_masks(game):
    told = sample(game, 60, exact_slopes(game, drawn(60)))
    held = told.folds()[0]
    changed = Sample(told.masks, told.values.copy(), 4, slopes=told.slopes.copy())
    changed.values[held], changed.slopes[held] = noise(len(held)), noise((len(held), N))
    before, after = (sloped(each, [held]) for each in (told, changed))
    assert set(before) == {"slopes 2", "slopes 3"}
    for name, offer in before.items():
        np.testing.assert_array_equal(offer.held_out, after[name].held_out)
        assert np.isnan(np.delete(offer.held_out, held)).all()


def test_masks_without_slopes_are_used_for_their_values(game):
    slopes = exact_slopes(game, drawn(120))
    slopes[40:] = np.nan
    some, few = sample(game, 120, slopes), sample(game, 40, slopes[:40])
    assert score(game, fit_proxy(some, PROXIES["auto"]).surrogate) > score(game, fit_proxy(few, PROXIES["auto"]).surrogate)


def test_a_fit_with_slopes_is_the_same_every_time(game):
    told = sample(game, 50, exact_slopes(game, drawn(50)) + noise((50, N)))
    first, second = (fit_proxy(told, PROXIES["auto"]).surrogate for _ in range(2))
    np.testing.assert_array_equal(first.coefficients, second.coefficients)


# ---- purchases


def run(game, price, slopes_of, budget=400, rounds=None, **options):
    """A run whose game has these slopes; `rounds` collects the number of masks and whether slopes were asked."""
    explorer = ProxySPEX(budget=budget, **{"focus": "average", **options}).start(N, 0)
    explorer = explorer if price is None else explorer.with_slopes(price)
    while len(masks := explorer.ask()):
        asked = explorer.asks_slopes
        assert explorer.asks_slopes == asked  # asking changes nothing
        if rounds is not None:
            rounds.append((len(masks), asked))
        explorer.tell(masks, game.predict(masks), None, slopes_of(masks)[:, None, :] if asked else None)
    return explorer


def test_slopes_that_help_are_bought_after_a_trial_and_the_budget_is_kept(game):
    rounds = []
    explorer = run(game, 2.0, lambda masks: exact_slopes(game, masks), rounds=rounds)
    with_slopes = [size for size, asked in rounds if asked]
    assert rounds[0] == (N + 1, False)
    assert len(with_slopes) == 2
    assert with_slopes[0] < with_slopes[1]
    assert 398 <= N + 1 + 2 * sum(with_slopes) <= 400
    assert explorer.slopes is not None
    notes = " ".join(explorer.result().notes)
    assert f"Slopes were measured at {sum(with_slopes)} masks" in notes
    assert score(game, explorer.result().surrogate) > 0.95


@pytest.mark.parametrize("price", [2.0, 4.0])
def test_slopes_that_do_not_help_are_bought_only_for_the_trial(game, price):
    rounds = []
    explorer = run(game, price, lambda masks: noise(masks.shape), rounds=rounds)
    assert [asked for _, asked in rounds] in ([False, True, False], [False, True, True, False])
    assert all((price - 1) * size <= max(0.08 * 400, (price - 1) * LEAST_TRIAL) for size, asked in rounds if asked)
    assert "no more were measured" in " ".join(explorer.result().notes)
    assert score(game, explorer.result().surrogate) > score(game, run(game, None, None, budget=280).result().surrogate) - 0.05


def test_a_run_that_resumes_asks_for_the_same(game):
    first = run(game, 2.0, lambda masks: exact_slopes(game, masks), budget=250)
    again = ProxySPEX(budget=250, focus="average").start(N, 0).with_slopes(2.0)
    start = 0
    while len(masks := again.ask()):
        rows = slice(start, start + len(masks))
        start += len(masks)
        np.testing.assert_array_equal(masks, first.masks[rows])
        known = np.isfinite(first.slopes[rows]).all()
        assert again.asks_slopes == known
        again.tell(masks, first.outputs[rows], None, first.slopes[rows] if known else None)
    np.testing.assert_array_equal(first.result().surrogate.coefficients, again.result().surrogate.coefficients)


@pytest.mark.parametrize(("options", "asked"), [({"slopes": "off"}, False), ({"proxy": "trees"}, False), ({"max_order": 1}, False), ({"slopes": "on"}, True)])
def test_options_decide_whether_slopes_are_bought(game, options, asked):
    rounds = []
    run(game, 2.0, lambda masks: noise(masks.shape), rounds=rounds, **options)
    assert [each for _, each in rounds[1:]] == [asked] * len(rounds[1:])


def test_the_price_decides(game):
    told = sample(game, 120, exact_slopes(game, drawn(120)) + noise((120, N)))
    verdicts = []
    for price in (1.0, 30.0):
        purchases = Purchases("auto", price, {0, 1})
        verdicts.append(purchases.masks(1000, lambda: told))
    assert verdicts == [(1000, True), (1000, False)]


def test_a_trial_that_is_not_clear_is_repeated_once(game):
    slopes = exact_slopes(game, drawn(40))
    told = next(each for scale in range(1, 40) if 1 / np.sqrt(2) < relative_error(each := sample(game, 40, slopes + scale * noise(slopes.shape))) < 1)
    first, second = Purchases("auto", 2.0, {1}), Purchases("auto", 2.0, {1, 2})
    size, asked = first.masks(600, lambda: told)
    assert (first.verdict, asked) == (None, True)
    assert size < 300
    assert second.masks(600, lambda: told) == (600, False)


def test_a_budget_too_small_for_a_trial_buys_slopes_only_if_they_are_cheap():
    def none():
        raise AssertionError("there is no trial")

    assert Purchases("auto", 2.0).masks(50, none) == (25, True)
    assert Purchases("auto", 6.0).masks(50, none) == (50, False)
