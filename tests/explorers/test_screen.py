"""The guide's steps 3 to 5."""

import json
from math import comb

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError
from spectral.known_games import and_or, explore, found

from raysp.errors import UserError
from raysp.explorers import Screen, r_squared
from raysp.explorers.candidates import automatic
from raysp.gradients import GradientReport
from raysp.masks import Masks
from raysp.spectral.walsh import all_masks


def triple(masks: Masks):
    """A triple that works only together, two pairs and singles."""
    x = masks.astype(float)
    return 4 * x[:, 0] * x[:, 1] * x[:, 2] + 2 * x[:, 0] * x[:, 3] + x @ np.linspace(1, 0.1, masks.shape[1])


def test_pairs_are_measured_exactly_and_ranked_by_deviation():
    findings = explore(Screen(top_k=6), and_or, 20).result()
    assert findings.index == "additivity"
    assert found(findings) == pytest.approx({(2, 3): 3.0, (0, 1): -2.0})  # or: removing both does more; and: less than the parts
    assert findings.table["components"].to_pylist()[0] == [2, 3] or found(findings)[2, 3] == 3
    assert findings.table["lo"] == findings.table["value"] == findings.table["hi"]


def test_the_surrogate_reproduces_all_that_was_measured_and_additive_games_entirely():
    started = explore(Screen(top_k=6), and_or, 20)
    masks = started.masks[1:]
    near = masks[masks.sum(axis=1) >= 18]
    assert np.allclose(started.result().surrogate.predict(near), and_or(near))
    fresh = np.random.default_rng(0).random((300, 20)) < 0.9
    assert r_squared(and_or(fresh), started.result().surrogate.predict(fresh)) > 0.99


def test_single_effects_of_all_components_are_kept():
    singles = explore(Screen(top_k=2), and_or, 10).result().singles
    assert singles["value"].to_numpy() == pytest.approx([2, 2, 0, 0, 1, 0.5, 0, 0, 0, 0])
    assert set(singles["method"].to_pylist()) == {"removed"}


@pytest.mark.parametrize(("top_k", "kept"), [(0.2, 4), (0.01, 2), (5, 5), (100, 20), (1, 2)])
def test_top_k_is_a_fraction_or_a_count(top_k, kept):
    started = explore(Screen(top_k=top_k), triple, 20)
    assert len(started.result().diagnostics["kept"]) == kept
    assert len(started.masks) == 22 + comb(kept, 2) == Screen(top_k=top_k).planned(20)


@pytest.mark.parametrize("top_k", [0, -3, 1.5, "some"])
def test_another_top_k_is_refused(top_k):
    with pytest.raises((UserError, ValidationError), match="top_k"):
        Screen(top_k=top_k)


def test_automatic_k_follows_the_spread_of_the_effects():
    rng = np.random.default_rng(0)
    peaked, flat = np.r_[np.full(3, 100.0), rng.random(297) * 0.1], rng.random(300) + 1
    assert automatic(peaked) == 30  # the least share of 300
    assert automatic(flat) == 60  # the most
    between = np.r_[np.full(45, 1.0), np.zeros(255)]
    assert automatic(between) == 45
    assert automatic(np.zeros(5)) == 5
    notes = explore(Screen(), and_or, 30).result().notes
    assert any("spread of the single effects" in note for note in notes)


def test_the_budget_caps_the_pairs_strongest_products_first_and_says_so():
    started = explore(Screen(top_k=6, budget=27), triple, 20)
    assert len(started.masks) == 27
    findings = started.result()
    assert len(findings.table) == 5
    assert set(map(tuple, findings.table["components"].to_pylist())) >= {(0, 1), (0, 2), (0, 3)}
    assert findings.notes[0].startswith("5 of the 15 pairs among the 6 strongest of 20")


def test_triples_on_request():
    findings = explore(Screen(top_k=6, order=3), triple, 15).result()
    values = found(findings, 1e-6)
    assert values[0, 1, 2] == pytest.approx(4.0)
    assert values[0, 1] == pytest.approx(-4.0)
    assert values[0, 3] == pytest.approx(-2.0)
    assert (0, 1, 2) not in found(explore(Screen(top_k=6), triple, 15).result(), 1e-6)
    assert any("triples" in note for note in findings.notes)


def test_triples_share_the_budget_with_pairs():
    started = explore(Screen(top_k=8, order=3, budget=40), triple, 15)
    orders = started.result().table["order"].to_pylist()
    assert len(started.masks) <= 40
    assert orders.count(3) > 0
    assert orders.count(2) == 16


def test_components_are_included_whatever_their_effect():
    screen = Screen(top_k=2, always_include=("b", 7, "3")).start(10, labels=["a", "b", "c", "d", "b", "e", "f", "g", "h", "i"])
    assert screen.options.always_include == (1, 4, 7, 3)
    started = explore(screen, and_or, 10)
    assert set(started.result().diagnostics["kept"]) == {0, 1, 3, 4, 7}
    assert len(started.masks) <= screen.planned(10)


def test_unknown_components_are_refused():
    with pytest.raises(UserError, match=r"always_include: 'zebra' is not a component.*never"):
        Screen(always_include=("zebra",)).start(2, labels=["never", "fails"])
    with pytest.raises(UserError, match="always_include: 12"):
        Screen(always_include=(12,)).start(10)
    with pytest.raises(UserError, match="always_include: 'never'"):
        Screen(always_include=("never",)).start(10)


# ---- precomputed scores

SCORES = [0.0, 0.0, 9.0, 8.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_scores_replace_the_single_ablations_except_where_deviations_need_them():
    started = explore(Screen(top_k=2, scores=tuple(SCORES)), and_or, 10)
    assert len(started.masks) == 2 + 2 + 1
    findings = started.result()
    assert found(findings) == pytest.approx({(2, 3): 3.0})
    assert findings.singles["method"].to_pylist() == ["removed" if i in {2, 3} else "given" for i in range(10)]
    assert findings.singles["value"].to_pylist()[4] == 0.1
    assert any("ranked by the given scores" in note for note in findings.notes)


@pytest.mark.parametrize("kind", ["list.json", "object.json", "one.csv", "named.csv", "table.parquet", "array.npy"])
def test_scores_come_from_files(tmp_path, kind):
    file = tmp_path / kind
    if kind == "list.json":
        file.write_text(json.dumps(SCORES))
    elif kind == "object.json":
        file.write_text(json.dumps({"scores": SCORES}))
    elif kind == "one.csv":
        file.write_text("\n".join(["effect", *map(str, SCORES)]))
    elif kind == "named.csv":
        file.write_text("\n".join(["word,score", *(f"w{i},{score}" for i, score in enumerate(SCORES))]))
    elif kind == "table.parquet":
        parquet.write_table(pa.table({"word": list("abcdefghij"), "value": SCORES}), file)
    else:
        np.save(file, np.array(SCORES))
    assert explore(Screen(top_k=2, scores=str(file)), and_or, 10).result().diagnostics["kept"] == [2, 3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("short.json", "[1, 2]", "2 numbers for 10 components"),
        ("words.json", '["a"]', "cannot be read"),
        ("broken.json", "[1,", "cannot be read"),
        ("nan.json", json.dumps([*SCORES[:9], float("nan")]), "not finite"),
        ("matrix.json", "[[1, 2], [3, 4]]", r"shape \(2, 2\)"),
        ("unnamed.csv", "a,b\n1,2\n", "is named score"),
        ("scores.txt", "1", "unknown file type"),
    ],
)
def test_bad_scores_are_refused_before_anything_is_measured(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"scores: .*{message}"):
        Screen(scores=str(tmp_path / name)).start(10)


def test_gradients_rank_as_given_scores_do():
    report = GradientReport({"any": np.array([SCORES])}, leading="any", intact=1.0)
    started = Screen(top_k=2, scores="gradient").start(10).with_gradients(report)
    given = Screen(top_k=2, scores=tuple(SCORES)).start(10)
    while not given.done():
        assert np.array_equal(started.ask(), given.ask())
        for screen in (started, given):
            screen.tell(screen.ask(), and_or(screen.ask()))
    assert started.done()
    singles = started.result().singles
    assert singles["method"].to_pylist() == ["removed" if i in {2, 3} else "gradient" for i in range(10)]
    assert singles["value"].to_numpy() == pytest.approx(given.result().singles["value"].to_numpy())
    assert any("gradients" in note for note in started.result().notes)


def test_without_an_estimate_gradient_scores_are_refused():
    with pytest.raises(UserError, match="scores: 'gradient' needs the model's gradients"):
        Screen(scores="gradient").start(10).ask()


def test_missing_scores_are_refused():
    with pytest.raises(UserError, match="is not a file"):
        Screen(scores="nowhere.json").start(10)


# ---- as an estimator


def test_fit_uses_what_it_needs_of_a_table_and_names_what_is_missing():
    masks = all_masks(8)
    findings = Screen(top_k=4).fit(masks, and_or(masks)).findings
    assert found(findings) == pytest.approx({(2, 3): 3.0, (0, 1): -2.0})
    few = masks[masks.sum(axis=1) != 7]
    with pytest.raises(ValueError, match=r"8 of 10 masks that screen needs.*\[0\]"):
        Screen().fit(few, and_or(few))
    lonely = masks[np.isin(masks.sum(axis=1), [0, 7, 8])]
    with pytest.raises(ValueError, match="1 of 1 masks that screen needs"):
        Screen().fit(lonely, and_or(lonely))


@pytest.mark.parametrize(("budget", "included"), [(10, ()), (23, (98, 99)), (5, ())])
def test_scores_do_not_loosen_the_budget(budget, included):
    scores = tuple(np.random.default_rng(0).normal(size=100).tolist())
    screen = Screen(scores=scores, budget=budget, top_k=20, always_include=included)
    assert screen.start(100).planned(100) <= budget
    started = explore(screen, lambda masks: masks.sum(axis=1).astype(float), 100)
    assert len(started.masks) <= budget
    findings = started.result()
    assert set(included) <= set(findings.diagnostics["kept"])
    assert findings.diagnostics["measured"] >= 1


def test_components_always_included_need_a_budget_of_their_own():
    with pytest.raises(UserError, match="give at least 7"):
        Screen(scores=(1.0,) * 100, budget=6, always_include=(1, 2, 3, 4)).start(100)
