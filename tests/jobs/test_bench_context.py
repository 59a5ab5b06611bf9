"""The benchmark of contexts: deterministic texts, figures that are right on planted functions, and the columns of its rows."""

import numpy as np
import pytest

from jobs.bench.context import KS, correlation, mean_and_error, numbered, scores, summary
from jobs.bench.context_methods import METHODS, Attribution, Question, lasso_weights, logit
from jobs.bench.context_texts import FILLERS, FORMS, LENGTHS, contexts

WEIGHTS = np.array([3.0, -1.0, 0.5, 0.0, 2.0, 0.0, 0.0, 0.0])


def linear(masks):
    return masks @ WEIGHTS - 6.0


def covering(masks):
    """Components 0 and 1 cover for each other; component 2 matters a little."""
    return 4.0 * np.maximum(masks[:, 0], masks[:, 1]) + masks[:, 2] - 6.0


def test_contexts_are_the_same_each_time_and_more_of_them_begin_with_the_fewer():
    assert contexts(60)[:12] == contexts(12)
    assert len({each.name for each in contexts(60)}) == len({each.text for each in contexts(60)}) == 60


def test_contexts_have_about_twenty_sentences_that_all_forms_and_kinds_share_out():
    found = contexts(60)
    assert {len(each.sentences) for each in found} <= set(LENGTHS)
    assert all(len(set(each.sentences)) == len(each.sentences) and all(text.endswith(".") for text in each.sentences) for each in found)
    assert {each.name.split("-", 1)[1].rsplit("-", 1)[0] for each in found} == set(FORMS)
    assert len({each.name.rsplit("-", 1)[1] for each in found}) == 8


def test_the_answer_is_in_the_sentences_that_hold_it_and_nowhere_else():
    for each in contexts(60):
        holding = [each.sentences[place] for place in each.holding]
        answer = each.answer.strip()
        assert len(holding) == {"once": 1, "twice": 2, "two-hop": 2, "two-hop-twice": 3}[each.name.split("-", 1)[1].rsplit("-", 1)[0]]
        saying = [text for text in each.sentences if answer in text.rstrip(".").split()]
        assert saying
        assert set(saying) - set(FILLERS) <= set(holding)


def test_a_perfect_attribution_has_a_correlation_of_one_and_the_drops_of_its_sets():
    found = scores(Attribution(linear, (0, 4, 2, 3, 5, 6, 7, 1), range), linear, 8)
    assert found["lds"] == pytest.approx(1)
    assert [found[f"drop_{k}"] for k in KS] == pytest.approx([3.0, 5.5, 5.5])
    assert [found[f"best_{k}"] for k in KS] == pytest.approx([3.0, 2.5, 4.5])


def test_predictions_that_say_the_opposite_or_nothing_have_correlations_of_minus_one_and_nought():
    ranking = tuple(range(8))
    assert scores(Attribution(lambda masks: -linear(masks), ranking), linear, 8)["lds"] == pytest.approx(-1)
    assert scores(Attribution(lambda masks: np.zeros(len(masks)), ranking), linear, 8)["lds"] == 0


def test_correlation_is_of_ranks():
    assert correlation(np.arange(5.0), np.exp(np.arange(5.0))) == pytest.approx(1)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)


def test_contextcites_lasso_finds_the_weights_of_a_linear_function():
    masks = np.random.default_rng(0).random((500, 8)) < 0.5
    weights, intercept = lasso_weights(masks, linear(masks))
    assert weights == pytest.approx(WEIGHTS, abs=0.05)
    assert intercept == pytest.approx(-6, abs=0.1)


def test_logits_are_those_of_the_probabilities():
    assert logit(np.log([0.5, 0.9])) == pytest.approx([0.0, np.log(9)])


@pytest.mark.parametrize("method", ["both", "average", "screen"])
def test_a_set_that_covers_for_itself_is_found_by_the_solver(method):
    found = scores(METHODS[method](Question(covering, 8), 128, 0), covering, 8, (3,))
    assert found["best_3"] == pytest.approx(5, abs=1e-9)


def test_the_summary_compares_the_fewest_calls_with_the_peers_most():
    def row(context, method, calls, figure):
        return {"context": context, "method": method, "calls": calls, "lds": figure} | {f"drop_{k}": figure for k in KS}

    def ours(context, figure):
        return row(context, "both", 32, figure) | {f"best_{k}": figure + 1 for k in KS}

    found = summary([ours("a", 0.8), ours("b", 0.9), row("a", "contextcite", 256, 0.7), row("b", "contextcite", 256, 0.9), row("b", "contextcite", 32, 5.0)])
    assert found["goal lds: both 32 less contextcite 256"] == {"gain": pytest.approx(0.05), "error": pytest.approx(0.05), "met": True, "within_errors": True}
    assert found["goal best_3: both 32 less contextcite 256"]["gain"] == pytest.approx(1.05)
    assert found["both 32"]["contexts"] == 2
    assert mean_and_error([2.0]) == (2.0, 0.0)


def test_contexts_are_chosen_by_their_number_or_by_ranges():
    assert numbered("3") == [0, 1, 2]
    assert numbered("0:2,30:33") == [0, 1, 30, 31, 32]
