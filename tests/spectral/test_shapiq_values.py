"""Interactions handed to shapiq are those that shapiq itself computes, and its plots take them."""

import sys

import numpy as np
import pytest
from spectral.known_games import planted

from raysp.errors import UserError
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.shapiq_values import NAMES, to_shapiq
from raysp.spectral.walsh import all_masks


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("index", list(NAMES))
def test_equals_shapiqs_own(index, order):
    exact = pytest.importorskip("shapiq.game_theory.exact")
    n = 6
    values = np.random.default_rng(order).normal(size=1 << n)
    if index in {"sv", "bv"}:
        order = 1
    elif index == "mobius":
        order = n  # shapiq always gives all of them
    theirs = exact.ExactComputer(n_players=n, game=lambda kept: values[kept.astype(np.int64) @ (1 << np.arange(n))])(index=NAMES[index], order=order)
    ours = to_shapiq(FourierSurrogate.from_values(all_masks(n), values), index, order)
    assert (ours.index, ours.n_players, ours.min_order, ours.max_order) == (theirs.index, n, theirs.min_order, theirs.max_order)
    assert ours.baseline_value == pytest.approx(theirs.baseline_value)
    assert dict(ours.interactions) == pytest.approx({members: theirs[members] for members in ours.interactions}, abs=1e-7)  # shapiq solves for FSII
    assert len(ours.interactions) == len(theirs.interactions)
    assert not ours.estimated


def test_orders_can_be_bounded_and_an_estimate_says_so():
    pytest.importorskip("shapiq")
    surrogate = planted(12, 40, 0).with_error(np.ones(40))
    found = to_shapiq(surrogate, "fsii", 3, min_order=2)
    assert {len(members) for members in found.interactions} == {2, 3}
    assert found.estimated
    assert to_shapiq(surrogate).max_order == surrogate.sets.max_order
    assert surrogate.to_shapiq("stii", 2).index == "STII"


@pytest.mark.parametrize("index", list(NAMES))
def test_the_basis_does_not_matter(index):
    pytest.importorskip("shapiq")
    surrogate = planted(8, 30, 0)
    here, there = (to_shapiq(each, index, 2) for each in (surrogate, surrogate.rebased(0.8)))
    assert there.baseline_value == pytest.approx(here.baseline_value)
    # The other basis also lists sets that come to nothing.
    assert dict(there.interactions) == pytest.approx({members: here.interactions.get(members, 0.0) for members in there.interactions}, abs=1e-9)
    assert set(here.interactions) <= set(there.interactions)


def test_shapiqs_plots_take_them():
    shapiq = pytest.importorskip("shapiq")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    found = to_shapiq(planted(6, 20, 0), "fsii", 2)
    figure, _ = shapiq.network_plot(found, show=False)
    assert figure.axes
    assert found.plot_force(show=False) is not None
    matplotlib.pyplot.close("all")


def test_what_cannot_be_is_reported(monkeypatch):
    pytest.importorskip("shapiq")
    with pytest.raises(UserError, match=r"index: 'additivity' is not supported by shapiq.*fsii"):
        to_shapiq(planted(5, 8, 0), "additivity")
    with pytest.raises(UserError, match="not an interaction index"):
        to_shapiq(planted(5, 8, 0), "nonsense")
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(UserError, match=r"pip install 'raysp\[shapiq\]'"):
        to_shapiq(planted(5, 8, 0))
