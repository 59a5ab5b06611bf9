"""Where in a model's layers a surrogate's energy lies, by hand on a few terms."""

import numpy as np
import pytest

import raysp
from raysp.game import Component
from raysp.runs.layer_energy import energy_by_layer
from raysp.spectral.fourier import FourierSurrogate


def heads(*layers):
    return [Component(number, f"L{layer}H{number}", "head", layer=layer, unit=number) for number, layer in enumerate(layers)]


def shares(linear, within, across):
    return {"linear": pytest.approx(linear), "within": pytest.approx(within), "across": pytest.approx(across)}


def test_energy_is_linear_within_a_layer_or_across_layers():
    """F² of 9 and 1 for singles, 4 for a pair of layer 0, 2.25 and 0.25 across; the mean is no energy."""
    surrogate = FourierSurrogate.from_dict(4, {(): 100.0, (0,): 3.0, (3,): 1.0, (0, 1): 2.0, (1, 2): 1.5, (0, 1, 2): 0.5})
    told = energy_by_layer(surrogate, heads(0, 0, 1, 1))
    whole = 9 + 1 + 4 + 2.25 + 0.25
    assert told.pop("groups") == [{"layers": [0, 1], **shares(10 / whole, 4 / whole, 2.5 / whole)}]
    assert told == shares(10 / whole, 4 / whole, 2.5 / whole)


def test_layers_come_in_groups_of_three_and_a_set_counts_wherever_it_reaches():
    """Layers 2, 5, 6 and 9, 11: the pair across lies in both groups, what stays in one group in that alone."""
    surrogate = FourierSurrogate.from_dict(6, {(0,): 1.0, (1, 4): 2.0, (5,): 3.0, (4, 5): 1.0})
    told = energy_by_layer(surrogate, heads(2, 5, 6, 6, 9, 11))
    first, second = told["groups"]
    assert first == {"layers": [2, 5, 6], **shares(1 / 5, 0, 4 / 5)}
    assert second == {"layers": [9, 11], **shares(9 / 14, 0, 5 / 14)}
    assert told["linear"] == pytest.approx(10 / 15)


def test_a_group_that_nothing_reaches_is_left_out():
    told = energy_by_layer(FourierSurrogate.from_dict(4, {(0,): 1.0}), heads(0, 1, 2, 3))
    assert [group["layers"] for group in told["groups"]] == [[0, 1, 2]]


def test_words_lie_in_no_layers():
    words = [Component(number, word, "word") for number, word in enumerate(("not", "bad"))]
    assert energy_by_layer(FourierSurrogate.from_dict(2, {(0,): 1.0}), words) is None
    assert energy_by_layer(FourierSurrogate.from_dict(2, {(0,): 1.0}), [words[0], *heads(0)]) is None


@pytest.mark.parametrize("terms", [{(): 2.0}, {(): 2.0, (0,): 0.0}, {}])
def test_a_value_that_never_changes_has_no_energy(terms):
    assert energy_by_layer(FourierSurrogate.from_dict(2, terms), heads(0, 1)) is None


def test_the_basis_of_other_masks_has_its_own_shares():
    """An AND of two heads is mostly a pair for masks that keep half, and mostly linear for masks that keep almost all."""
    masks = np.array([[a, b] for a in (False, True) for b in (False, True)])
    both = FourierSurrogate.from_values(masks, masks.all(axis=1))
    half, most = (energy_by_layer(surrogate, heads(0, 1)) for surrogate in (both, both.rebased(0.95)))
    assert half["across"] == pytest.approx(1 / 3)
    # Var of AND at p is p²(1 - p²), of its singles 2 p³ (1 - p).
    assert most["linear"] == pytest.approx(2 * 0.95 / 1.95)


def test_a_run_of_components_without_layers_says_nothing_of_layers():
    lens = raysp.FunctionLens(lambda masks: np.asarray(masks).sum(axis=1).astype(float), n=3)
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True))
    assert "by_layer" not in result.summary["diagnostics"]
