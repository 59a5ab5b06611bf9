"""All interactions of a run: a table of which only the rows in sight are in the document, and controls for what is drawn and listed."""

import model_pages
import pages
import pytest

from raysp.report.page import write_report
from raysp.store import Store

WORDS, COUNT = 2000, 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("interaction-pages")
    with Store.open(place / "s.duckdb") as store:
        write_report(store, pages.large(store, WORDS, COUNT), place / "large.html")
        write_report(store, pages.forty_words(store), place / "forty-words.html")
        write_report(store, model_pages.thirty_layers(store), place / "thirty-layers.html")
    return place


@pytest.fixture
def rows():
    """The interactions of a run that the page has, as rows of the store."""

    def of(folder, run_id):
        with Store.read(folder / "s.duckdb") as store:
            return store.run_table("interactions", run_id).to_pylist()

    return of


def table(page):
    return page.locator("#all-interactions .vbody .vrow")


def ranks(page):
    return [int(text.replace(",", "")) for text in page.locator("#all-interactions .vbody .vrow > .nr").all_text_contents()]


def test_ten_thousand_interactions_of_two_thousand_words_are_a_small_file_and_few_elements(folder, visit):
    assert (folder / "large.html").stat().st_size < 1_000_000
    page = visit("large")
    assert page.locator("#rows-shown").text_content() == "10,000 of 10,000 interactions"
    assert page.locator("#text .c").count() == WORDS
    assert 5 < table(page).count() < 40
    assert page.locator("#all-interactions [role=grid]").get_attribute("aria-rowcount") == str(COUNT + 1)
    assert ranks(page)[0] == 1


def test_scrolling_and_keys_reach_every_row(visit):
    page = visit("large")
    page.locator("#all-interactions .vscroll").evaluate("e => { e.scrollTop = e.scrollHeight; }")
    page.wait_for_function("() => document.querySelector('#all-interactions .vbody .vrow:last-child').dataset.number === '9999'")
    assert ranks(page)[-1] == COUNT
    assert ranks(page) == sorted(ranks(page))
    assert table(page).count() < 40
    page.locator("#all-interactions .vscroll").evaluate("e => { e.scrollTop = 0; }")
    page.wait_for_function("() => document.querySelector('#all-interactions .vbody .vrow').dataset.number === '0'")
    page.locator("#filter").focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.dataset.number"
    for key, number in (("ArrowDown", "1"), ("ArrowDown", "2"), ("End", "9999"), ("ArrowUp", "9998"), ("Home", "0")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == number
    page.keyboard.press("PageDown")
    assert int(page.evaluate(focused)) > 3
    assert page.locator(".tip").text_content().startswith(page.locator(":focus .clip").text_content())


def test_a_row_has_the_figures_of_the_store_and_lights_its_words_though_it_is_not_drawn(folder, visit, rows):
    page = visit("large")
    row = rows(folder, "large")[8]
    found = table(page).nth(8)
    found.hover()
    assert page.locator("#text .c.on").all_text_contents() == [page.locator(f"#text .c[data-i='{i}']").text_content() for i in row["components"]]
    assert page.locator("#arcs .arc.on").count() == 1
    cells = found.locator("span[role=gridcell]").all_text_contents()
    assert cells[1:3] == [row["labels"], row["kind"]]
    assert float(cells[3].replace("−", "-")) == pytest.approx(row["value"], abs=0.005)
    assert [float(part.replace("−", "-")) for part in cells[4].split(" to ")] == pytest.approx([row["lo"], row["hi"]], abs=0.005)
    page.locator("h1").hover()
    assert page.locator("#arcs .arc").count() == 8
    assert page.locator("#text .c.on").count() == 0


def test_the_filter_finds_sets_by_the_labels_of_their_members(folder, visit, rows):
    page = visit("forty-words")
    page.locator("#filter").fill("NEV the")
    wanted = [
        row["rank"] for row in rows(folder, "forty-words") if all(any(word in label.lower() for label in row["labels"].split(" × ")) for word in ("nev", "the"))
    ]
    assert wanted
    assert ranks(page) == wanted[: len(ranks(page))]
    assert page.locator("#rows-shown").text_content() == f"{len(wanted)} of 45 interactions"
    page.locator("#filter").fill("nowhere at all")
    assert table(page).count() == 0


@pytest.mark.parametrize("name", ["forty-words", "thirty-layers"])
def test_order_and_threshold_govern_both_what_is_drawn_and_what_is_listed(folder, visit, rows, name):
    page = visit(name)
    found = rows(folder, name)
    page.locator("#order").select_option("3")
    page.locator("#threshold").fill("50")
    largest = max(abs(row["value"]) for row in found)
    wanted = [row["rank"] for row in found if row["order"] == 3 and abs(row["value"]) >= largest * 0.25]
    assert 0 < len(wanted) < len(found)
    page.locator("#shown").fill("300")
    drawn = page.evaluate("[...document.querySelectorAll('#arcs [data-rank]')].map(e => Number(e.dataset.rank))")
    assert sorted(drawn) == wanted
    assert page.locator("#shown-most").text_content() == str(len(wanted))
    assert page.locator("#rows-shown").text_content().startswith(f"{len(wanted)} of ")
    assert ranks(page) == wanted[: len(ranks(page))]


def test_some_hundred_can_be_drawn_at_once(visit):
    page = visit("large")
    page.locator("#shown").evaluate("e => { e.value = e.max; e.dispatchEvent(new Event('input')); }")
    assert page.locator("#arcs .arc").count() == 300
    assert page.locator("#shown-count").text_content() == "300"


def test_synergy_and_redundancy_differ_in_line_style_as_well_as_colour(visit):
    page = visit("forty-words")
    styles = [
        page.locator(f"{place}.{kind}").first.evaluate(f"e => getComputedStyle(e).{style}")
        for place, style in (("#arcs .arc", "strokeDasharray"), (".vbody .kind", "borderLeftStyle"))
        for kind in ("synergy", "redundancy")
    ]
    assert styles[0] != styles[1]
    assert styles[2] != styles[3]


def test_words_are_one_tab_stop_with_arrow_keys_and_the_figures_of_hovering(visit):
    page = visit("forty-words")
    assert page.locator("#text .c[tabindex='0']").count() == 1
    page.locator("#text .c").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.i") == "1"
    told = page.locator(".tip").text_content()
    assert told.startswith("went: ")
    page.keyboard.press("ArrowDown")
    below = page.locator(":focus").bounding_box()
    assert below["y"] > page.locator("#text .c").first.bounding_box()["y"] + 10
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.i") == "42"
    page.keyboard.press("Escape")
    assert not page.locator(".tip").is_visible()
    page.locator("#text .c").nth(1).hover()
    assert page.locator(".tip").text_content() == told


def test_cells_are_reached_by_arrow_keys_in_both_directions(visit):
    page = visit("thirty-layers")
    page.locator(".cell").first.focus()
    first = page.evaluate("document.activeElement.ariaLabel")
    assert first.startswith("L29H0:")
    for key, label in (("ArrowRight", "L29H1"), ("ArrowDown", "L28H1"), ("ArrowUp", "L29H1")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.ariaLabel").startswith(f"{label}:")
    assert page.locator(".tip").text_content() == page.evaluate("document.activeElement.ariaLabel")


def test_without_scripts_and_on_paper_the_strongest_are_there(folder, browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"file://{folder}/forty-words.html")
    assert page.locator("tr[data-rank]").count() == 12
    assert "The other 33 are in the store" in page.locator("main").inner_text()
    page.emulate_media(media="print")
    assert page.locator("tr[data-rank]:visible").count() == 12
    assert page.locator("#all-interactions:visible").count() == 0
    shades = {word.evaluate("e => getComputedStyle(e).backgroundColor") for word in page.locator("#text .c").all()}
    assert len(shades) > 3
    page.close()
