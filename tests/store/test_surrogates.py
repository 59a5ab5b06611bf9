"""A stored surrogate is the one that was fitted: the same predictions and intervals, to the bit."""

import numpy as np
import pytest
from stores import begin, game

import raysp
from raysp.errors import UserError
from raysp.masks import Masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Sets, unique_rows
from raysp.store import RunSurrogates, Store
from raysp.store.packing import from_binary


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        yield store


def random_sets(n, counts, rng) -> Sets:
    """Distinct sets, `counts[k]` of order k at most."""
    blocks = [np.zeros((counts[0], 0), dtype=np.int32)]
    for order, count in enumerate(counts[1:], 1):
        drawn = np.sort(np.argsort(rng.random((count, n)), axis=1)[:, :order].astype(np.int32), axis=1)
        blocks.append(unique_rows(drawn, n)[0])
    return Sets(n, tuple(blocks))


def fitted(n, counts, rng, columns=None, keep_probability=0.5):
    """A surrogate of random terms: exact (None), with standard errors (0) or with a factor of so many columns."""
    sets = random_sets(n, counts, rng)
    shape = (len(sets),) if not columns else (len(sets), columns)
    return FourierSurrogate(sets, rng.normal(size=len(sets)), None if columns is None else rng.random(shape), keep_probability)


def keep(store, found, masks: Masks | None = None, queries=(), run_id="run-1"):
    info = game(found.n)
    begin(store, run_id, info)
    masks = np.ones((1, found.n), dtype=bool) if masks is None else masks
    store.add_evaluations(run_id, "explore", masks, np.arange(len(masks), dtype=float))
    store.finish_run(run_id, "done", {}, RunSurrogates(found, 0.9, masks, queries))


@pytest.mark.parametrize("columns", [None, 0, 3], ids=["exact", "standard errors", "covariance"])
@pytest.mark.parametrize("keep_probability", [0.5, 0.8])
def test_what_is_read_predicts_the_same_and_has_the_same_intervals(store, columns, keep_probability):
    rng = np.random.default_rng(0)
    found = fitted(12, (1, 12, 40, 0, 30), rng, columns, keep_probability)
    keep(store, found)
    read = store.surrogate("run-1")
    masks = rng.random((200, 12)) < 0.5
    assert (read.predict(masks) == found.predict(masks)).all()
    for index in ("bii", "fsii", "mobius"):
        assert read.interactions(index).equals(found.interactions(index))
    assert (read.keep_probability, read.sets.max_order, store.keep_probability("run-1")) == (keep_probability, found.sets.max_order, 0.9)


@pytest.mark.parametrize("value", [np.nextafter(0.1, 1), -0.0, 5e-324, 1.7976931348623157e308])
def test_coefficients_are_kept_to_the_bit(store, value):
    found = FourierSurrogate.from_dict(4, {(): 1.0, (1, 2): value})
    keep(store, found)
    assert store.surrogate("run-1").coefficients.tobytes() == found.coefficients.tobytes()


def test_a_hundred_thousand_terms_are_kept(store):
    found = fitted(300, (1, 300, 10_000, 100_000), np.random.default_rng(1), columns=0)
    assert len(found) > 100_000
    keep(store, found)
    read = store.surrogate("run-1")
    assert (read.coefficients == found.coefficients).all()
    assert (read.error == found.error).all()
    assert all((one == other).all() for one, other in zip(read.sets.blocks, found.sets.blocks, strict=True))


def test_every_query_has_its_own_surrogate(store):
    rng = np.random.default_rng(2)
    whole, queries = fitted(6, (1, 6, 5), rng, 0), tuple(fitted(6, (1, 6, 4), rng, 0) for _ in range(3))
    keep(store, whole, queries=queries)
    masks = rng.random((20, 6)) < 0.5
    for query, found in enumerate(queries):
        assert (store.surrogate("run-1", query).predict(masks) == found.predict(masks)).all()
    with pytest.raises(UserError, match="query: 3 is not one of run run-1"):
        store.surrogate("run-1", 3)


def test_the_evaluations_fitted_to_are_marked_and_keep_their_order(store):
    masks = np.eye(4, dtype=bool)
    found = fitted(4, (1, 4), np.random.default_rng(3))
    keep(store, found, masks[[2, 0]])
    store.add_evaluations("run-1", "validate", masks[[1]], np.zeros(1))
    rows = store.run_evaluations("run-1")
    assert rows["fitted"].to_pylist() == [True, True, False]
    told, values = store.fitted_evaluations("run-1")
    assert told.tolist() == masks[[2, 0]].tolist()
    assert values.tolist() == [0.0, 1.0]


def test_an_answer_in_place_of_another_brings_its_own_surrogate(store):
    rng = np.random.default_rng(4)
    keep(store, fitted(5, (1, 5, 6), rng, 0))
    second = fitted(5, (1, 5), rng)
    store.finish_run("run-1", "done", {}, RunSurrogates(second, 0.5, np.ones((1, 5), dtype=bool)))
    assert store.surrogate("run-1").terms() == second.terms()
    assert store.sql("FROM surrogates").num_rows == 1


def test_a_run_without_a_surrogate_says_what_to_do(store):
    begin(store)
    with pytest.raises(UserError, match=r"run: 'run-1' has no surrogate in the store.*run the same question again") as caught:
        store.surrogate("run-1")
    assert "\n" not in str(caught.value)


def pairs(masks):
    return masks[:, 0] * 1.0 + 2.0 * (masks[:, 1] & masks[:, 2]) - (masks[:, 3] | masks[:, 4])


@pytest.mark.parametrize(
    "explorer",
    [raysp.ProxySPEX(budget=200), raysp.Screen(), raysp.Singles(budget=80), raysp.Exhaustive(), raysp.SPEX(budget=256)],
    ids=lambda explorer: explorer.name,
)
def test_every_explorer_stores_its_surrogate(explorer, home):
    lens = raysp.FunctionLens(pairs, n=9)
    result = raysp.run(raysp.RunSpec(lens=lens, explorer=explorer, local=True, validation=raysp.Validation(heldout=20)))
    with Store.read(home / "raysp.duckdb") as store:
        surrogate = store.surrogate(result.run_id)
    masks = from_binary(result.heldout["mask"], 9)
    assert surrogate.predict(masks).tolist() == result.heldout["predicted"].to_pylist()
    assert any(result.evaluations["fitted"].to_pylist())
