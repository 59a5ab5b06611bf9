"""What people are shown of each query: who helps, who harms, what is worth naming together, and texts that cannot do harm."""

import re

import asked_games
import pytest
from asked_games import AskedGame
from hypothesis import given
from hypothesis import strategies as st

from raysp.commands import display
from raysp.explorers import ProxySPEX, Screen
from raysp.game import Example, Query
from raysp.report.query_view import TABLES, answered, joined, plain


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Two examples a component, whose first is longer than a line."""
    texts = [(f"question {i} " + "and so on " * 30, f"answer {i}") for i in range(2 * asked_games.N)]
    examples = tuple(Example(i, i % asked_games.N, *text) for i, text in enumerate(texts))
    more = tuple(Query(i, f"query {i}", f"asked [bold]{i}[/]", "yes\u202e", "no") for i in range(7))
    game = AskedGame(lambda masks: asked_games.planted(masks)[:, [0, 1, 2, 0, 1, 2, 0]], more, name="seven", examples=examples)
    return asked_games.run(tmp_path_factory.mktemp("asked") / "s.duckdb", game, ProxySPEX(budget=200, max_order=2, proxy="linear"))


def of(result, **options):
    tables = {name: getattr(result, name).to_pylist() for name in TABLES}
    return answered(tables, result.components["label"].to_pylist(), 1, **options)


def test_each_query_has_its_helpers_harmers_and_sets_with_texts(result):
    first, second, third = of(result, queries=3)
    helpful = [effect.member.component for effect in second.helpful]
    assert (set(helpful[:2]), helpful[2:]) == ({4, 7}, [0])  # the first two help alike
    assert [effect.member.component for effect in third.harmful] == [5]
    assert [member.component for member in first.redundant[0].members] == [2, 9]
    assert first.redundant[0].deviation == pytest.approx(2, abs=0.1)
    assert [member.component for member in second.synergies[0].members] == [4, 7]
    assert second.synergies[0].members[0].text.startswith("question 4 and so on")
    assert second.synergies[0].members[0].examples == 2
    assert not third.redundant + third.synergies


def test_no_more_is_taken_than_asked_for(result):
    assert len(of(result)) == 7
    assert [len(query.helpful) for query in of(result, top=1, queries=2)] == [1, 1]


def test_where_less_is_better_the_sides_change_places(result):
    tables = {name: getattr(result, name).to_pylist() for name in TABLES}
    third = answered(tables, result.components["label"].to_pylist(), -1)[2]
    assert [effect.member.component for effect in third.helpful] == [5]


def row(members, exact, *, verified=True, significant=False):
    kind = "redundancy" if exact > 0 else "synergy"
    return {
        "query": 0,
        "components": members,
        "kind": kind,
        "exact": exact if verified else None,
        "estimate": exact,
        "verified": verified,
        "significant": significant,
    }


def test_what_is_negligible_or_not_sure_is_not_named_and_what_holds_over_subsets_comes_first():
    single = {"query": 0, "component": 0, "value": 1.0, "lo": None, "hi": None, "method": "removed"}
    sets = [row([0, 1], 0.05), row([0, 2], 0.4, verified=False), row([1, 2], -0.3), row([0, 1, 2], 0.2, verified=False, significant=True), row([0, 1, 3], 0.9)]
    tables = {
        "queries": [{"query": 0, "label": "q", "prompt": "p", "target": "t", "foil": None}], "examples": [], "query_scores": [],
        "query_singles": [single], "query_interactions": sets,
    }  # fmt: skip
    [query] = answered(tables, ["a", "b", "c", "d"], 1)
    assert [found.deviation for found in query.redundant] == [0.2, 0.9]
    assert [found.deviation for found in query.synergies] == [-0.3]
    assert query.helpful[0].member.text == "a"


@given(st.text())
def test_a_plain_text_is_one_line_without_what_is_not_seen(text):
    made = plain(text)
    assert made == " ".join(made.split())
    assert not any(char in made for char in "\u202e\u2066\x00\n\t\u2028")
    assert plain(made) == made


def test_words_are_left_as_they_are_written():
    assert plain("क्\u200dष  naïve\r\nمرحبا") == "क्\u200dष naïve مرحبا"
    assert joined("", "yes") == "yes"
    assert joined("p", "c") == "p → c"


def printed(capsys, result):
    display.print_result(result)
    return " ".join(capsys.readouterr().out.split())


def test_the_terminal_shows_the_first_queries_and_says_where_the_others_are(result, capsys, monkeypatch):
    monkeypatch.setattr(display.out, "width", 200)
    text = printed(capsys, result)
    assert "query 1 asked [bold]0[/] → “yes” rather than “no”" in text
    assert "query 5 " in text
    assert "query 6 " not in text
    assert "2 more queries: raysp sql" in text
    assert "redundant +2.000" in text
    assert "synergy −3.000" in text
    assert re.search("harmed −1\\.(49|50)", text)
    assert "(and 1 more)" in text
    assert "LDS" in text
    assert "\u202e" not in text


def test_json_has_the_queries_and_only_of_games_that_have_some(result, tmp_path):
    told = display.result_json(result)
    assert len(told["query_scores"]) == len(told["queries"]) == 7
    assert told["query_interactions"][0]["labels"]
    assert told["data_scores"] == told["selections"] == []
    assert "examples" not in told
    assert "outputs" not in told


def test_games_without_queries_are_shown_as_before(tmp_path, capsys):
    result = asked_games.run(tmp_path / "s.duckdb", AskedGame(queries=(), name="mute"), Screen(top_k=2))
    assert "query" not in printed(capsys, result)
    assert "queries" not in display.result_json(result)
