import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spectral.known_games import planted

from raysp.errors import EvaluationError, UserError
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.indices import INDICES, convert, removed_weight, sum_over_supersets
from raysp.spectral.sets import Sets, from_tuples, positions
from raysp.spectral.walsh import all_masks, walsh_hadamard


@st.composite
def tables(draw, largest=7):
    n = draw(st.integers(1, largest))
    seed = draw(st.integers(0, 2**31))
    return n, np.random.default_rng(seed).normal(size=1 << n)


def exact(n, values):
    return FourierSurrogate.from_values(all_masks(n), values)


@given(tables())
def test_transform_of_a_complete_table_reproduces_it(table):
    n, values = table
    assert np.allclose(exact(n, values).predict(all_masks(n)), values)


@given(tables(), st.integers(0, 2**31))
def test_order_of_the_rows_does_not_matter(table, seed):
    n, values = table
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = FourierSurrogate.from_values(all_masks(n)[order], values[order])
    assert np.allclose(shuffled.coefficients, exact(n, values).coefficients)


@given(tables())
def test_parseval(table):
    n, values = table
    energy = exact(n, values).energy()
    assert np.isclose(energy.sum(), np.mean(values**2))
    assert np.isclose(energy[1:].sum(), np.var(values))


@given(tables())
def test_walsh_hadamard_twice_is_the_identity(table):
    _, values = table
    assert np.allclose(walsh_hadamard(walsh_hadamard(values)) / len(values), values)


@given(tables())
def test_coefficients_follow_the_stated_convention(table):
    n, values = table
    masks = all_masks(n)
    total = sum(value * np.prod(1.0 - 2.0 * masks[:, list(members)], axis=1) for members, value in exact(n, values).terms().items())
    assert np.allclose(total, values)


@given(st.integers(25, 90), st.integers(0, 1000))
@settings(max_examples=20)
def test_sparse_and_dense_prediction_agree(n, seed):
    surrogate = planted(n, 40, seed)
    masks = np.random.default_rng(seed).random((50, n)) < 0.5
    direct = sum(value * np.prod(1.0 - 2.0 * masks[:, list(members)], axis=1) for members, value in surrogate.terms().items())
    assert np.allclose(surrogate.predict(masks), direct)


def test_prediction_in_chunks_is_prediction_at_once(monkeypatch):
    surrogate = planted(40, 60, 0)
    masks = np.random.default_rng(0).random((300, 40)) < 0.5
    whole = surrogate.predict(masks)
    monkeypatch.setattr("raysp.spectral.fourier.CHUNK", 500)
    assert np.allclose(surrogate.predict(masks), whole)


def test_table_lists_the_strongest_first_with_the_documented_columns():
    table = FourierSurrogate.from_dict(4, {(): 9.0, (0,): 1.0, (1, 3): -3.0, (0, 1, 2): 2.0}).interactions("fourier", min_order=1)
    assert table["components"].to_pylist() == [[1, 3], [0, 1, 2], [0]]
    assert table["components"].type.value_type == pa.int32()
    assert table.schema.types[1:] == [pa.int32(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.bool_()]
    assert table.column_names == ["components", "order", "index", "value", "lo", "hi", "significant"]
    assert table["order"].to_pylist() == [2, 3, 1]
    assert table["lo"] == table["hi"] == table["value"]


def test_orders_can_be_bounded():
    surrogate = exact(5, np.random.default_rng(0).normal(size=32))
    assert set(surrogate.interactions("bii", max_order=3, min_order=2)["order"].to_pylist()) == {2, 3}


def test_unknown_index_names_the_known_ones():
    with pytest.raises(UserError, match=r"shapley.*mobius.*fsii"):
        planted(5, 6, 0).interactions("shapley")


@pytest.mark.parametrize(
    ("masks", "values", "message"),
    [
        (all_masks(3)[:7], np.zeros(7), r"\(7, 3\).*all 2\^n"),
        (np.concatenate([all_masks(2)[:3], all_masks(2)[:1]]), np.zeros(4), r"\(4, 2\)"),
        (all_masks(3), np.zeros(7), r"\(7,\).*\(8,\).*\(8, 3\)"),
        (np.zeros(4), np.zeros(4), r"\(4,\)"),
        (all_masks(2).astype(float), np.zeros(4), "float64"),
    ],
)
def test_what_is_no_complete_table_is_refused(masks, values, message):
    with pytest.raises(ValueError, match=message):
        FourierSurrogate.from_values(masks, values)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(EvaluationError, match=r"components \[0, 1\] removed"):
        FourierSurrogate.from_values(all_masks(2), np.array([np.nan, 0, 0, 0]))


def test_sets_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not a set of distinct components"):
        FourierSurrogate.from_dict(3, {(0, 3): 1.0})
    with pytest.raises(ValueError, match="not a set of distinct components"):
        from_tuples(3, [(1, 1)])


def test_predicting_masks_of_another_width_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(m, 5\)"):
        planted(5, 6, 0).predict(np.ones((2, 4), dtype=bool))


@given(st.integers(1, 9), st.integers(0, 1000))
def test_positions_find_exactly_the_sets_that_are_there(n, seed):
    rng = np.random.default_rng(seed)
    some = [tuple(np.flatnonzero(row).tolist()) for row in rng.random((6, n)) < 0.5]
    others = [tuple(np.flatnonzero(row).tolist()) for row in rng.random((6, n)) < 0.5]
    family, wanted = from_tuples(n, some), from_tuples(n, others)
    expected = [family.tuples().index(members) if members in family.tuples() else -1 for members in wanted.tuples()]
    assert positions(family, wanted).tolist() == expected


# ---- indices against their definitions, by brute force


def moebius(n, values):
    """I(T) = sum over S in T of (-1)^(|T| - |S|) v(S), straight from the definition."""
    return {
        members: sum(
            (-1) ** (len(members) - size) * values[sum(1 << i for i in part)]
            for size in range(len(members) + 1)
            for part in itertools.combinations(members, size)
        )
        for order in range(n + 1)
        for members in itertools.combinations(range(n), order)
    }


def as_dict(surrogate, index, max_order=None, min_order=0):
    sets, values, _ = surrogate.index(index, max_order, min_order)
    return dict(zip(sets.tuples(), values.tolist(), strict=True))


@given(tables(6))
@settings(max_examples=30)
def test_moebius_is_its_definition_and_rebuilds_the_game(table):
    n, values = table
    dividends = moebius(n, values)
    assert as_dict(exact(n, values), "mobius") == pytest.approx(dividends, abs=1e-9)
    rebuilt = [sum(v for members, v in dividends.items() if all(mask[list(members)])) for mask in all_masks(n)]
    assert np.allclose(rebuilt, values)


@given(tables(6))
@settings(max_examples=20)
def test_banzhaf_is_the_mean_discrete_derivative(table):
    n, values = table
    for members, value in as_dict(exact(n, values), "bii").items():
        rest = [i for i in range(n) if i not in members]
        derivatives = [
            sum(
                (-1) ** (len(members) - size) * values[sum(1 << i for i in (*base, *part))]
                for size in range(len(members) + 1)
                for part in itertools.combinations(members, size)
            )
            for count in range(len(rest) + 1)
            for base in itertools.combinations(rest, count)
        ]
        assert value == pytest.approx(np.mean(derivatives), abs=1e-9)


@given(tables(6))
@settings(max_examples=20)
def test_additivity_is_the_deviation_around_the_intact_input(table):
    n, values = table
    full = (1 << n) - 1
    found: dict[tuple[int, ...], float] = {}
    for order in range(1, n + 1):
        for members in itertools.combinations(range(n), order):
            joint = values[full] - values[full - sum(1 << i for i in members)]
            found[members] = joint - sum(found[part] for size in range(1, order) for part in itertools.combinations(members, size))
    assert as_dict(exact(n, values), "additivity") == pytest.approx(found, abs=1e-9)


@given(tables(6))
def test_deviations_from_additivity_turn_back_into_fourier(table):
    n, values = table
    surrogate = exact(n, values)
    sets, deviations, _ = surrogate.index("additivity")
    everything = from_tuples(n, [(), *sets.tuples()])
    terms, coefficients = sum_over_supersets(everything, np.concatenate([[0.0], deviations]), removed_weight, range(n + 1))
    coefficients[0] += values[-1]
    assert np.allclose(FourierSurrogate(terms, coefficients).predict(all_masks(n)), values)


@given(tables(7))
def test_shapley_values_are_efficient(table):
    n, values = table
    assert sum(as_dict(exact(n, values), "sv").values()) == pytest.approx(values[-1] - values[0], abs=1e-9)


@given(tables(6), st.sampled_from(["stii", "fsii"]), st.integers(1, 4))
def test_faithful_and_taylor_interactions_are_efficient(table, index, order):
    n, values = table
    order = min(order, n)
    total = sum(as_dict(exact(n, values), index, order, 1).values())
    assert total == pytest.approx(values[-1] - values[0], abs=1e-8)


@given(tables(5), st.sampled_from([name for name in INDICES if name != "fourier"]))
def test_a_null_player_has_no_part_in_any_index(table, index):
    n, values = table
    wider = exact(n + 1, np.concatenate([values, values]))  # component n changes nothing
    assert all(abs(value) < 1e-9 for members, value in as_dict(wider, index, 3, 1).items() if n in members)


@given(tables(6), st.sampled_from(list(INDICES)), st.integers(0, 1000))
def test_indices_do_not_depend_on_the_numbering(table, index, seed):
    n, values = table
    order = np.random.default_rng(seed).permutation(n)
    renamed = FourierSurrogate.from_values(all_masks(n)[:, order], values)  # new component j is the old order[j]
    before, after = as_dict(exact(n, values), index, 3), as_dict(renamed, index, 3)
    assert {tuple(sorted(order[list(members)].tolist())): value for members, value in after.items()} == pytest.approx(before, abs=1e-9)


@given(tables(6), st.sampled_from(list(INDICES)), st.integers(0, 1000))
def test_indices_are_linear(table, index, seed):
    n, values = table
    other = np.random.default_rng(seed).normal(size=len(values))
    left = as_dict(exact(n, 2 * values - 3 * other), index, 3)
    first, second = as_dict(exact(n, values), index, 3), as_dict(exact(n, other), index, 3)
    assert left == pytest.approx({members: 2 * first[members] - 3 * second[members] for members in first}, abs=1e-8)


@given(st.integers(6, 9), st.integers(0, 500), st.sampled_from(list(INDICES)), st.integers(1, 4))
@settings(max_examples=40)
def test_sparse_and_dense_conversion_agree(n, seed, index, order):
    sparse = planted(n, min(12, 2 * n), seed)
    padded = exact(n, sparse.predict(all_masks(n)))
    few, many = as_dict(sparse, index, order), as_dict(padded, index, order)
    assert all(abs(many[members] - few.get(members, 0.0)) < 1e-9 for members in many)


@pytest.mark.parametrize(("index", "order"), [*itertools.product(["SII", "STII", "FSII", "FBII", "BII"], [1, 2, 3]), ("SV", 1), ("BV", 1)])
def test_agrees_with_shapiq(index, order):
    game_theory = pytest.importorskip("shapiq.game_theory.exact")
    n = 7
    values = np.random.default_rng(order).normal(size=1 << n)
    surrogate = exact(n, values)

    def game(coalitions):
        return values[coalitions.astype(np.int64) @ (1 << np.arange(n))]

    theirs = game_theory.ExactComputer(n_players=n, game=game)(index=index, order=order)
    ours = as_dict(surrogate, index.lower(), order, 1)
    compared = {members: theirs[members] for members in ours}
    assert ours == pytest.approx(compared, abs=1e-8)


def test_many_sparse_terms_convert_within_memory():
    rng = np.random.default_rng(0)
    sets = from_tuples(1000, [rng.choice(1000, 5, replace=False).tolist() for _ in range(10_000)])
    for index in INDICES:
        converted, values = convert(index, sets, rng.normal(size=len(sets)), max_order=5)
        assert len(converted) == len(values)


def test_too_many_subsets_is_a_user_error():
    wide = Sets(60, (*(np.zeros((0, k), dtype=np.int32) for k in range(40)), np.arange(40, dtype=np.int32)[None]))
    with pytest.raises(UserError, match="max_order"):
        convert("mobius", wide, np.ones(1))


# ---- errors of coefficients


@pytest.mark.parametrize("index", list(INDICES))
def test_errors_are_propagated_like_the_values(index):
    surrogate = planted(9, 20, 3)
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(len(surrogate), 5))
    sets, _, errors = surrogate.with_error(factor).index(index, 3)
    columns = np.stack([FourierSurrogate(surrogate.sets, column).index(index, 3)[1] for column in factor.T], axis=1)
    assert np.allclose(errors, np.linalg.norm(columns, axis=1))
    independent = surrogate.with_error(np.abs(factor[:, 0])).index(index, 3)[2]
    assert np.allclose(independent, surrogate.with_error(np.diag(np.abs(factor[:, 0]))).index(index, 3)[2])
    assert len(sets) == len(errors)


def test_significance_counts_all_sets_that_were_possible():
    terms = {(i, i + 1): 0.0 for i in range(40)} | {(50, 51): 8.0, (60, 61): 3.0}
    table = FourierSurrogate.from_dict(100, terms).with_error(np.ones(42)).interactions("fourier")
    strong = [tuple(row["components"]) for row in table.to_pylist() if row["significant"]]
    assert strong == [(50, 51)]  # 3 standard errors are nothing special among 4,950 pairs


def test_what_the_tolerances_of_a_fit_leave_is_not_significant():
    """A game without noise is fitted almost exactly, with standard errors that are far below what the solvers resolve."""
    table = FourierSurrogate.from_dict(20, {(0, 1): 1.0, (2, 3): 1e-8, (4, 5): 1e-4}).with_error(np.full(3, 1e-10)).interactions("fourier")
    assert [row["components"] for row in table.to_pylist() if row["significant"]] == [[0, 1], [4, 5]]


def test_an_estimate_with_a_wide_interval_is_not_ahead_of_one_that_is_better_known():
    found = FourierSurrogate.from_dict(6, {(0,): 1.0, (1, 2): 0.1, (1, 3): -0.08, (0, 1, 2, 3): 0.04})
    rows = found.with_error(np.full(len(found), 0.05)).interactions("bii", 4, 2).to_pylist()
    assert not any(row["significant"] for row in rows)
    own = [row for row in rows if tuple(row["components"]) in {(1, 2), (1, 3), (0, 1, 2, 3)}]
    assert [abs(row["value"]) for row in own] == pytest.approx([0.4, 0.32, 0.64])
    least = [abs(row["value"]) - (row["hi"] - row["lo"]) / 2 for row in rows]
    assert least == sorted(least, reverse=True)
