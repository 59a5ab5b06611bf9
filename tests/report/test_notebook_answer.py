"""The answer that a notebook shows, in a real browser without a network: a drawing without scripts, of a size that a notebook keeps, in which no label does anything."""

import re
from html.parser import HTMLParser

import data_pages
import model_pages
import numpy as np
import pages
import pytest

from raysp.notebooks.progress import line_html
from raysp.runs.progress import Progress
from raysp.runs.result import read_result
from raysp.store import Store

RUNS = {
    "six-words": pages.six_words, "forty-words": pages.forty_words, "sentences": pages.sentences, "function": pages.function, "hostile": pages.hostile,
    "thirty-layers": model_pages.thirty_layers, "mixed": model_pages.mixed, "many-neurons": model_pages.many_neurons,
    "question-answers": data_pages.question_answers,
}  # fmt: skip
LARGEST = 100_000
TAGS = {
    "b", "br", "code", "div", "li", "p", "path", "rect", "strong", "style", "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul",
}  # fmt: skip


class Parsed(HTMLParser):
    """The tags and attributes of HTML, as a browser reads them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def shell(html):
    """What stands around an output in a notebook, as far as it matters here."""
    return f'<!doctype html><meta charset="utf-8"><title>notebook</title><body>{html}</body>'


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The HTML of every answer by its name, and the folder in which they lie as pages."""
    place = tmp_path_factory.mktemp("answers")
    found = {}
    with Store.open(place / "s.duckdb") as store:
        long = pages.info(pages.words_of(pages.REVIEW * 40), pages.REVIEW * 40)
        added = {name: add(store) for name, add in RUNS.items()}
        added["long"] = pages.add_run(store, "long", long, pages.some_sets(long.n, np.random.default_rng(1), 200), seed=5)
        store.start_run("begun", pages.spec(long), long, lens="feature", explorer="screen", seed=0)
        for name, run_id in {**added, "begun": "begun"}.items():
            found[name] = read_result(store, run_id)._repr_html_()
            (place / f"{name}.html").write_text(shell(found[name]))
    with Store.open(place / "t.duckdb") as store:  # it has a run of the same name
        found["hostile-examples"] = read_result(store, data_pages.hostile(store))._repr_html_()
        (place / "hostile-examples.html").write_text(shell(found["hostile-examples"]))
    return found, place


@pytest.fixture(scope="module")
def folder(answers):
    return answers[1]


ALL = [*RUNS, "hostile-examples", "long", "begun"]


@pytest.mark.parametrize("name", ALL)
def test_it_is_small_and_has_no_script_and_no_link(answers, name):
    html = answers[0][name]
    assert len(html.encode()) < LARGEST
    read = Parsed()
    read.feed(html)
    assert read.tags <= TAGS
    assert not [each for each in read.attributes if each.startswith("on") or each in {"href", "src", "style"}]
    assert not re.search(r"url\(|@import", html)


@pytest.mark.parametrize(("width", "scheme"), [(420, "light"), (900, "dark")])
@pytest.mark.parametrize("name", ALL)
def test_it_shows_itself_without_complaint_within_the_window(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (
        page.evaluate("window.getComputedStyle(document.querySelector('.raysp-answer')).backgroundColor")
        == {"light": "rgb(253, 252, 250)", "dark": "rgb(21, 23, 27)"}[scheme]
    )


def test_only_what_it_shows_is_styled(answers):
    style = re.search(r"<style>(.*?)</style>", answers[0]["six-words"], flags=re.DOTALL)[1]
    selectors = [each.strip() for block in re.findall(r"([^{}]+){", style) for each in block.split(",") if not each.strip().startswith("@media")]
    assert [each for each in selectors if ".raysp-answer" not in each] == []


def test_the_theme_of_the_notebook_wins_over_that_of_the_system(answers, folder, visit):
    (folder / "themed.html").write_text(shell(f'<div data-jp-theme-light="true">{answers[0]["six-words"]}</div>'))
    page = visit("themed", 900, "dark")
    assert page.evaluate("window.getComputedStyle(document.querySelector('.raysp-answer')).backgroundColor") == "rgb(253, 252, 250)"


def test_arcs_join_the_words_that_interact(visit):
    page = visit("six-words")
    assert page.locator(".raysp-arc").count() == 6
    ends = page.evaluate("""() => {
        const boxes = [...document.querySelectorAll('svg text')].map(e => e.getBBox());
        return [...document.querySelectorAll('.raysp-arc')].every(arc => [0, arc.getTotalLength()].every(at => {
            const {x} = arc.getPointAtLength(at);
            return boxes.some(box => box.x - 1 <= x && x <= box.x + box.width + 1);
        }));
    }""")
    assert ends


def test_words_are_shaded_by_the_direction_of_their_effects(visit):
    page = visit("six-words")
    words = page.evaluate("[...document.querySelectorAll('svg text')].map(e => e.textContent)")
    assert words == pages.SHORT.split()
    assert page.locator("rect.raysp-pos").count() + page.locator("rect.raysp-neg").count() > 0


def test_the_table_has_intervals_and_marks_what_was_measured(answers):
    rows = re.findall(r"<tr>(.*?)</tr>", answers[0]["six-words"].rpartition("<table>")[2], flags=re.DOTALL)[1:]
    assert len(rows) == 6
    assert all("[" in row for row in rows)
    assert sum("✓" in row for row in rows) == 5


def test_parts_of_a_model_are_a_heat_map(answers):
    html = answers[0]["thirty-layers"]
    assert "L29" in html
    assert html.count('class="raysp-cells"') == 1
    assert answers[0]["mixed"].count('class="raysp-cells"') == 2


def test_examples_are_cards(answers):
    html = answers[0]["question-answers"]
    assert html.count("raysp-helped") > 3
    assert "What is the capital of Australia?" in html


def test_text_that_is_too_long_says_what_is_left_out(answers):
    assert re.search(r"\d+ more lines are in the report", answers[0]["long"])


def test_a_line_of_progress_does_nothing_either():
    html = line_html(Progress("<b>run</b>", "explore", 3, 9, detail="<i>x</i>"), ["<script>alert(1)</script>"])
    assert not re.search(r"<script|<b>run|<i>", html)
    assert '<progress max="9" value="3">' in html
