"""A gradient report is read from the store as it was written."""

import numpy as np
import pytest
from stores import game

from raysp.gradients import GradientReport, PairTerms
from raysp.store import Store

RNG = np.random.default_rng(0)
PAIRS = PairTerms(np.array([[0, 2], [1, 3]]), np.array([0.5, -1.5]), RNG.normal(size=4))
REPORTS = [
    GradientReport(),
    GradientReport(notes=("gradients are left out: no vectors",)),
    GradientReport({"sizes": RNG.random((1, 4))}, frozenset({"sizes"}), max_order=2),
    GradientReport(
        {"one": RNG.normal(size=(3, 4)), "other": RNG.normal(size=(3, 4))}, leading="one", intact=0.25, priors=("other", "one"), max_order=1, seconds=2.5
    ),
    GradientReport({"one": RNG.normal(size=(1, 4))}, leading="one", intact=0.25, pairs=PAIRS),
]


def same(one, other):
    plain = [(each.unsigned, each.leading, each.intact, each.priors, each.max_order, each.notes, each.seconds, list(each.effects)) for each in (one, other)]
    assert plain[0] == plain[1]
    for method, effects in one.effects.items():
        np.testing.assert_array_equal(other.effects[method], effects)
    assert (one.pairs is None) == (other.pairs is None)
    if one.pairs is not None:
        for name in ("components", "deviations", "singles"):
            np.testing.assert_array_equal(getattr(other.pairs, name), getattr(one.pairs, name))


@pytest.mark.parametrize("report", REPORTS, ids=["empty", "notes", "unsigned", "queries", "pairs"])
def test_a_report_is_read_back_as_it_was_stored(tmp_path, report):
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.gradient_report(game(4).fingerprint) is None
        store.add_gradient_report(game(4), report)
    with Store.read(tmp_path / "s.duckdb") as store:
        same(store.gradient_report(game(4).fingerprint), report)


def test_a_later_report_takes_the_place_of_an_earlier_one(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        for report in REPORTS:
            store.add_gradient_report(game(4), report)
            same(store.gradient_report(game(4).fingerprint), report)
        assert store.sql("FROM gradient_reports").num_rows == 1


def test_effects_are_there_for_sql(tmp_path):
    with Store.open(tmp_path / "s.duckdb") as store:
        store.add_gradient_report(game(4), REPORTS[3])
        rows = store.sql("SELECT method, query, effects[2] AS second FROM gradient_effects WHERE signed ORDER BY method, query").to_pylist()
    assert [(row["method"], row["query"]) for row in rows] == [(method, query) for method in ("one", "other") for query in range(3)]
    assert [row["second"] for row in rows[:3]] == REPORTS[3].effects["one"][:, 1].tolist()
