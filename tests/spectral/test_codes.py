"""A code corrects what it promises, and the soft decoder more."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.spectral.codes import bch, flips, parity_length


def words(code, sets):
    """The parities of sets, uint8 `(len(sets), parity_bits)`."""
    return np.array([code.parity[list(members)].sum(axis=0) % 2 for members in sets], dtype=np.uint8).reshape(len(sets), code.parity_bits)


def padded(code, sets):
    return [[*sorted(members), *[code.n] * (code.t - len(members))] for members in sets]


@pytest.mark.parametrize(
    ("n", "t", "bits"), [(36, 5, 27), (92, 5, 35), (215, 5, 40), (973, 5, 50), (1000, 5, 55), (2000, 5, 60), (1, 1, 2), (11, 1, 4), (12, 1, 5)]
)
def test_the_parity_bits_are_those_of_the_best_code(n, t, bits):
    assert parity_length(n, t) == bits == bch(n, t).parity.shape[1]


def test_impossible_codes_are_refused():
    with pytest.raises(ValueError, match="no BCH code"):
        parity_length(1 << 21, 2)


@pytest.mark.parametrize(("n", "t"), [(7, 2), (100, 5)])
def test_the_parities_are_those_of_galois(n, t):
    galois = pytest.importorskip("galois")
    code = bch(n, t)
    theirs = galois.BCH((1 << code.degree) - 1, d=2 * t + 1)
    generator = np.array(theirs.G)
    # A code word of galois starts with its highest power.
    assert np.array_equal(code.parity, generator[: theirs.k - n - 1 if theirs.k > n else None : -1, theirs.k :][:, ::-1])


@pytest.mark.parametrize(("n", "t"), [(1, 1), (4, 1), (11, 1), (7, 2), (5, 3), (9, 3), (6, 5)])
def test_no_two_code_words_are_nearer_than_2t_plus_1(n, t):
    code = bch(n, t)
    sets = [members for k in range(1, n + 1) for members in itertools.combinations(range(n), k)]
    weights = words(code, sets).sum(axis=1) + [len(members) for members in sets]
    assert weights.min() >= 2 * t + 1


@pytest.mark.parametrize(("n", "t"), [(5, 1), (9, 2), (12, 2), (7, 3)])
def test_every_pattern_of_at_most_t_errors_is_corrected(n, t):
    code = bch(n, t)
    places = range(n + code.parity_bits)
    patterns = [errors for k in range(t + 1) for errors in itertools.combinations(places, k)]
    sets = [[place for place in errors if place < n] for errors in patterns]
    received = words(code, sets)
    for row, errors in zip(received, patterns, strict=True):
        row[[place - n for place in errors if place >= n]] ^= 1
    members, valid = code.decode(received)
    assert valid.all()
    assert members.tolist() == padded(code, sets)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 10), st.integers(0, 2**31))
def test_random_patterns_of_at_most_t_errors_are_corrected(n, t, seed):
    code, rng = bch(n, t), np.random.default_rng(seed)
    sets = [sorted(rng.choice(n, rng.integers(0, min(t, n) + 1), replace=False).tolist()) for _ in range(20)]
    received = words(code, sets)
    for row, members in zip(received, sets, strict=True):
        row[rng.choice(code.parity_bits, min(rng.integers(0, t - len(members) + 1), code.parity_bits), replace=False)] ^= 1
    members, valid = code.decode(received)
    assert valid.all()
    assert members.tolist() == padded(code, sets)


def test_words_far_from_all_sets_are_said_to_be_none():
    code = bch(200, 3)
    _, valid = code.decode(np.random.default_rng(0).integers(0, 2, (2000, code.parity_bits), dtype=np.uint8))
    assert valid.mean() < 0.2


def test_decoding_does_not_depend_on_how_words_are_batched(monkeypatch):
    code = bch(60, 3)
    received = np.random.default_rng(0).integers(0, 2, (500, code.parity_bits), dtype=np.uint8)
    values = np.random.default_rng(1).normal(size=(30, code.parity_bits + 1))
    whole, soft = code.decode(received), code.decode_soft(values, 64)
    monkeypatch.setattr("raysp.spectral.codes.WORDS", 128)
    monkeypatch.setattr("raysp.spectral.codes.SEARCHED", 200)
    for one, other in zip((*whole, *soft), (*code.decode(received), *code.decode_soft(values, 64)), strict=True):
        assert np.array_equal(one, other)


def test_flips_are_ordered_by_how_likely_they_are():
    choices = flips(4, 6)
    assert [np.flatnonzero(choice).tolist() for choice in choices] == [[], [0], [1], [2], [0, 1], [3]]
    assert len(flips(3, 100)) == 8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_soft_decoding_finds_a_set_whatever_the_sign_of_its_coefficient(sign):
    code, sets = bch(50, 3), [(3, 17, 40), (), (5,)]
    signs = 1.0 - 2.0 * words(code, sets)
    rows, members = code.decode_soft(sign * np.column_stack([np.ones(3), signs]), 1)
    assert rows.tolist() == [0, 1, 2]
    assert members.tolist() == padded(code, sets)


def test_soft_decoding_mends_a_wrong_reference():
    code, sets = bch(50, 3), [(3, 17, 40)]
    values = np.column_stack([[-0.1], 1.0 - 2.0 * words(code, sets)])
    assert padded(code, sets)[0] in code.decode_soft(values, 2)[1].tolist()
    assert padded(code, sets)[0] not in code.decode_soft(values, 1)[1].tolist()


def test_soft_beats_hard_under_noise():
    code, rng = bch(300, 5), np.random.default_rng(0)
    sets = [sorted(rng.choice(300, 4, replace=False).tolist()) for _ in range(100)]
    values = np.column_stack([np.ones(100), 1.0 - 2.0 * words(code, sets)])
    values += rng.normal(size=values.shape) * 0.6
    wanted = padded(code, sets)
    hard, _ = code.decode(((values[:, 1:] < 0) ^ (values[:, :1] < 0)).astype(np.uint8))
    rows, members = code.decode_soft(values)
    found_hard = sum(row == want for row, want in zip(hard.tolist(), wanted, strict=True))
    found_soft = len({int(row) for row, found in zip(rows, members.tolist(), strict=True) if found == wanted[row]})
    assert found_hard < 60
    assert found_soft > found_hard + 25
