"""The page of a run, in a real browser without a network."""

import re
from base64 import b64encode
from hashlib import sha256

import pages
import pytest
from reading import read

from raysp.errors import UserError
from raysp.report.page import write_report, write_set_report
from raysp.store import Store

RUNS = {"six-words": pages.six_words, "forty-words": pages.forty_words, "sentences": pages.sentences, "function": pages.function, "hostile": pages.hostile}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every page, written once."""
    place = tmp_path_factory.mktemp("pages")
    with Store.open(place / "s.duckdb") as store:
        for name, add in RUNS.items():
            write_report(store, add(store), place / f"{name}.html")
        write_set_report(store, pages.example_set(store), place / "set.html")
        unfinished = pages.info(pages.words_of("never finished"), "never finished")
        store.start_run("unfinished", pages.spec(unfinished), unfinished, lens="feature", explorer="screen", seed=0)
        write_report(store, "unfinished", place / "unfinished.html")
    return place


ALL = [*RUNS, "set", "unfinished"]


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1280, "dark")])  # the colours of a scheme change no place
@pytest.mark.parametrize("name", ALL)
def test_opens_offline_without_complaint_and_fits_the_window(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('h1, h2, p, .c')].every(e => e.getBoundingClientRect().right <= innerWidth + 1)")


@pytest.mark.parametrize(("name", "drawn"), [("six-words", 6), ("forty-words", 8), ("sentences", 8), ("function", 8), ("hostile", 3), ("unfinished", 0)])
@pytest.mark.parametrize("width", [400, 1280])
def test_one_arc_an_interaction_drawn_from_its_words(visit, name, drawn, width):
    page = visit(name, width)
    assert page.locator("#arcs .arc").count() == drawn
    outside = """() => {
        const words = [...document.querySelectorAll('.c')].map(e => e.getBoundingClientRect());
        const field = document.getElementById('text').getBoundingClientRect();
        return [...document.querySelectorAll('#arcs .arc')].filter(path => {
            const box = path.getBoundingClientRect();
            return box.left < field.left - 4 || box.right > field.right + 4 || box.top < field.top - 40 || box.bottom > field.bottom + 4;
        }).length;
    }"""
    assert page.evaluate(outside) == 0


def test_arcs_begin_and_end_at_their_words(visit):
    page = visit("six-words")
    ends = """() => {
        const path = document.querySelector("#arcs .arc[data-rank='1']");
        const origin = document.getElementById('arcs').getBoundingClientRect();
        return [0, path.getTotalLength()].map(at => path.getPointAtLength(at)).map(point => [point.x + origin.left, point.y + origin.top]);
    }"""
    for (x, y), word in zip(page.evaluate(ends), (".c[data-i='2']", ".c[data-i='3']"), strict=True):
        box = page.locator(word).evaluate("e => e.getBoundingClientRect().toJSON()")
        assert box["left"] < x < box["right"]
        assert y == pytest.approx(box["top"], abs=1)


def test_the_slider_and_the_window_redraw_the_arcs(visit):
    page = visit("forty-words")
    page.locator("#shown").fill("20")
    assert page.locator("#arcs .arc").count() == 20
    before = page.locator("#arcs .arc[data-rank='1']").get_attribute("d")
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_function("before => document.querySelector(\"#arcs .arc[data-rank='1']\").getAttribute('d') !== before", arg=before)
    assert page.locator("#arcs .arc").count() == 20


def test_a_row_of_the_table_lights_its_words(visit):
    page = visit("six-words")
    page.locator("tr[data-rank='2']").first.hover()
    assert page.locator("#arcs .arc.on").count() == 1
    assert page.locator(".c.on").all_text_contents() == ["never", "fails", "impress"]


def test_dark_mode_changes_the_colours_of_page_and_charts(visit):
    seen = set()
    for scheme in ("light", "dark"):
        page = visit("six-words", scheme=scheme)
        seen.add(
            (
                page.evaluate("getComputedStyle(document.documentElement).backgroundColor"),
                page.locator("[data-chart=singles] .tick").first.evaluate("e => getComputedStyle(e).fill"),
            )
        )
    assert len({background for background, _ in seen}) == len({fill for _, fill in seen}) == 2


def test_printing_is_light_and_as_wide_as_paper(visit):
    page = visit("forty-words", scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.getElementById('text').clientWidth") <= 680
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#fdfcfa"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#15171b"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_text_is_text(visit):
    page = visit("hostile")
    assert page.locator(".c").all_text_contents() == [word for word, _, _ in pages.words_of(" ".join(pages.HOSTILE))]
    assert page.locator("main img, main u, main b, main script").count() == 0
    assert "</script><img src=x onerror=alert(2)>" in page.locator("h1").text_content()
    assert any("<b>bold</b>" in label for label in page.locator("[data-chart=singles] .label").all_text_contents())


def test_the_verdict_comes_first_with_its_reasons(folder):
    text = read(folder / "forty-words.html")
    assert "Why does smollm2-135m-instruct say “positive” rather than “negative”?" in text
    order = [
        text.index(part)
        for part in ("everything removed", "Use with care", "The surrogate predicts well", "Effects in the text", "Interactions Significant sets first")
    ]
    assert order == sorted(order)
    assert re.findall(r'<li data-code="(\w+)">', (folder / "forty-words.html").read_text()) == ["surrogate_good", "estimates_good", "low_impact_clear"]


def test_the_page_says_at_the_top_when_interactions_do_not_help(folder):
    text = read(folder / "sentences.html")
    assert text.count("interactions do not help") == 1
    assert text.index("On average over contexts interactions do not help: single effects alone predict") < text.index("Effects in the text")
    assert "Around this input they do (R² 0.60 adding up single effects, 0.88 with interactions)." in text
    assert "do not help" not in read(folder / "six-words.html")


def test_everything_that_is_owed_is_on_the_page(folder):
    text = read(folder / "six-words.html")
    for part in (
        "−0.42", "logit of the target", "never × fails", "Could strong interactions have been missed?", "20 of 253 pairs", "The assumption holds", "0.93", "0.90 to 0.95",
        "R² of single effects alone", "explore", "validate", "Review: Her acting never fails to impress Sentiment:", "max_order: 4", "fingerprint",
    ):  # fmt: skip
        assert part in text


def test_an_unfinished_run_says_so(folder):
    assert "This run is not finished" in read(folder / "unfinished.html")


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_one_file_that_asks_for_nothing_and_has_no_inline_styles(folder, name):
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    assert not re.search(r"<(link|img|iframe)\b|<script[^>]+src=|<[^>]+\s(style|on\w+)=", page.split("<script>")[0])


@pytest.mark.parametrize("name", ["six-words", "set"])
def test_a_file_allows_its_own_style_and_script_by_hash_and_nothing_else(folder, browser, name):
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    blocks = [re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("style", "script")]
    assert [len(found) for found in blocks] == [1, 1]
    hashes = [b64encode(sha256(found[0].encode()).digest()).decode() for found in blocks]
    assert policy == f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    # The policy is in force: an inline handler does nothing, and is complained about.
    page = browser.new_page()
    page.goto(f"file://{folder / name}.html")
    refused = """() => new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        document.body.setAttribute("onclick", "document.title = 'run'");
        document.body.click();
    })"""
    assert page.evaluate(refused) == "script-src-attr"
    assert page.title() != "run"
    page.close()


def test_the_set_page_counts_verdicts_and_kinds(folder):
    text = read(folder / "set.html")
    assert re.search(r"5 reliable ?, 2 use with care", text)
    assert "Interactions improve the prediction in 7 of 7 examples." in text
    assert text.count("raysp report set-") == 7


def test_errors_are_one_line_and_leave_no_half_file(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with Store.read(folder / "s.duckdb") as store:
        with pytest.raises(UserError, match=r"report: .* cannot be written"):
            write_report(store, "six-words", tmp_path / "file" / "out.html")
        with pytest.raises(UserError, match=r"report: .* cannot be written"):
            write_report(store, "six-words", tmp_path)
        with pytest.raises(ValueError, match="no run"):
            write_report(store, "none", tmp_path / "out.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
