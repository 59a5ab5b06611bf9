"""The page of a run about a training set: each query with the examples that it owes to."""

import re

import data_pages
import pytest
from reading import read

from raysp.report.page import write_report
from raysp.store import Store

UNFINISHED = "unfinished"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every page, written once."""
    place = tmp_path_factory.mktemp("data-pages")
    with Store.open(place / "s.duckdb") as store:
        for name, add in data_pages.RUNS.items():
            write_report(store, add(store), place / f"{name}.html")
        game = data_pages.info(data_pages.ANSWERS, data_pages.QUERIES, name=UNFINISHED)
        store.start_run(UNFINISHED, '{"lens": {"kind": "data"}}', game, lens="data", explorer="proxyspex", seed=0)
        write_report(store, UNFINISHED, place / f"{UNFINISHED}.html")
    return place


ALL = [*data_pages.RUNS, UNFINISHED]


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [*((name, 390, "light") for name in ALL), *((name, 1280, "dark") for name in ALL), ("hostile", 390, "dark"), ("hostile", 1280, "light")],
)
def test_opens_offline_without_complaint_and_fits_the_window(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = "[...document.querySelectorAll('h1, h2, h3, h4, p, .said, .asks, select')].every(e => e.getBoundingClientRect().right <= innerWidth + 1)"
    assert page.evaluate(inside)


def test_one_query_is_shown_at_a_time_and_another_can_be_chosen(visit):
    page = visit("question-answers")
    assert page.locator(".query:visible").count() == 1
    assert "capital of Australia" in page.locator(".query:visible h3").text_content()
    before = page.locator("#query-heldout .plot").inner_html()
    page.locator("#chosen-query").select_option("1")
    assert "Sistine" in page.locator(".query:visible h3").text_content()
    assert page.locator(".query:visible").count() == 1
    page.wait_for_function("before => document.querySelector('#query-heldout .plot').innerHTML !== before", arg=before)


def test_a_single_query_needs_no_choice(visit):
    page = visit("one-query")
    assert page.locator("#chosen-query").count() == 0
    assert page.locator(".query:visible").count() == 1


def test_helpful_and_harmful_examples_come_with_text_effect_and_bar(visit):
    page = visit("question-answers")
    helped, harmed = (page.locator(".query:visible .sides").first.locator("ul").nth(i) for i in (0, 1))
    # The mean over training sets with its interval, and the effect with the full one.
    assert helped.locator(".worth").first.text_content().strip() == "+1.47+1.42 to +1.52alone +2.10"
    assert harmed.locator(".worth").first.text_content().strip() == "−0.91−0.96 to −0.86alone −1.30"
    assert "when nothing else is left out" in page.locator(".query:visible").text_content()
    assert any(prompt in helped.text_content() for prompt, _ in data_pages.ANSWERS)
    assert helped.locator(".bar rect").first.evaluate("e => e.getBoundingClientRect().width / e.parentNode.getBoundingClientRect().width") == 1


def test_for_a_loss_it_is_the_fall_that_helps(visit):
    page = visit("reviews")
    assert page.locator(".query:visible .sides ul").first.locator(".worth").first.text_content().strip().startswith("−1.30")
    assert page.locator(".query .beside").count() == 0  # only estimates are known


def test_sets_show_the_texts_of_all_their_members_and_what_was_measured(folder):
    text = read(folder / "question-answers.html")
    for part in ("Redundant each covers for the others", "Synergistic they work only together", "✓", "measured exactly"):
        assert part in text


def test_what_the_page_owes_is_on_it(folder):
    text = read(folder / "question-answers.html")
    for part in (
        "Which training examples make smollm2-135m-instruct answer as it does?", "10 examples, 4 queries", "LoRA of rank 8 on q_proj, v_proj of layers 26 to 29",
        "answer “Canberra” rather than “Sydney”", "rank correlation (LDS)", "0.90", "Attribution methods compared by retraining", "proxyspex", "0.61", "unheard_of",
        "Selected training sets", "drop harmful:5%", "+0.210", "all 4 queries and takes 1.4 s", "retrainings", "All queries together", "Interactions", "left out of the training set",
    ):  # fmt: skip
        assert part in text, part
    assert "0.99" not in text  # a score of one query


def test_groups_say_how_many_examples_stand_behind_the_first(folder):
    text = read(folder / "reviews.html")
    assert re.search(r"the first of topic=\w+ \d+ \(4 examples\)", text)
    assert "600 examples in 150 components, 64 queries" in text
    assert "40 of 64" in text
    assert "mean of 2 trainings" in text
    assert "All queries together" not in text  # so many components are not listed


def test_hostile_texts_are_texts(visit, folder):
    page = visit("hostile")
    assert page.locator("main img, main script").count() == 0
    for query in range(len(data_pages.HOSTILE)):
        page.locator("#chosen-query").select_option(str(query))
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    source = (folder / "hostile.html").read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x07]", source.split("<script")[0])
    assert "<img src=x onerror=alert(1)>" in page.locator("body").text_content()
    assert "x" * 1200 not in source
    assert "क्\u200dष" in source


def test_texts_written_from_the_right_keep_to_themselves(visit):
    page = visit("hostile")
    page.locator("#chosen-query").select_option("2")
    assert page.locator(".query:visible h3").evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.locator(".query:visible .says").evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_on_paper_every_query_is_there(visit):
    page = visit("question-answers", scheme="dark")
    page.emulate_media(media="print")
    assert page.locator(".query:visible").count() == 4
    assert page.locator("#chosen-query:visible").count() == 0


def test_an_unfinished_run_says_so_and_shows_its_queries(folder):
    text = read(folder / f"{UNFINISHED}.html")
    assert "This run is not finished" in text
    assert "capital of Australia" in text
