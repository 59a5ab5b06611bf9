"""The SQL console, in a browser, of a running service."""

import csv
import io
import json

import pytest
from accessibility import serious, width

from raysp.web.pages.sql import examples

HOSTILE = '</script><img src=x onerror="alert(1)">"><svg onload=alert(2)>'


@pytest.fixture
def console(open_page, answered):
    """The console of a service that has an answered run."""
    assert answered["feature"]

    def opened(query="", *, address="/sql", **options):
        page = open_page(address, **options)
        if query:
            run(page, query)
        return page

    return opened


def run(page, query):
    page.fill("#query", query)
    page.click("#run")
    finished(page)


def finished(page):
    """Wait for the answer of the query that was just sent."""
    page.wait_for_selector("#query-note >> text=runs it")
    page.wait_for_selector("#answer:visible")


def cells(page, row=0):
    return page.locator("#grid .vbody .vrow").nth(row).locator("[role=gridcell]").all_inner_texts()


def test_the_documented_queries_are_offered_and_run(console):
    page = console()
    assert len(examples()) == 10
    buttons = page.locator("[data-query]")
    assert buttons.all_inner_texts() == [example.title for example in examples()]
    buttons.filter(has_text="All runs with their verdicts").click()
    page.wait_for_selector("#answer:visible")
    assert page.input_value("#query") == next(example.query for example in examples() if example.title.startswith("All runs"))
    finished(page)
    assert page.locator("#grid [role=columnheader]").all_inner_texts() == ["run_id", "name", "explorer", "r2", "r2_singles", "gain", "verdict"]
    assert "proxyspex" in cells(page)


def test_a_query_is_run_with_the_keyboard_alone(console):
    page = console()
    page.focus("#query")
    page.keyboard.type("SELECT 1 AS one")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer:visible")
    assert cells(page) == ["1"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "run"  # Tab leaves the field
    page.keyboard.press("Enter")
    page.wait_for_selector("#grid .vbody .vrow")


def test_thousands_of_rows_are_scrolled_and_sorted_with_few_of_them_in_the_document(console):
    page = console("SELECT i, 'row ' || i AS label FROM range(5000) t(i)")
    assert page.locator("#grid .vbody .vrow").count() < 100
    assert page.locator("#grid [role=grid]").get_attribute("aria-rowcount") == "5001"
    page.focus("#grid .vrow[tabindex='0']")
    page.keyboard.press("End")
    page.wait_for_selector("#grid [role=gridcell] >> text=row 4999")
    assert page.locator("#grid .vbody .vrow").count() < 100
    for first in ("0", "4999"):
        page.locator("#grid .sort").first.click()
        page.wait_for_selector(f"#grid .vrow[aria-rowindex='2'] [role=gridcell] >> text='{first}'")
    assert page.locator("#grid [role=columnheader]").first.get_attribute("aria-sort") == "descending"


def test_null_long_texts_and_lists_are_told_apart(console):
    page = console("SELECT NULL AS nothing, 'null' AS word, repeat('x', 500) AS long, [1, 2] AS list")
    assert cells(page)[:2] == ["null", "null"]
    assert page.locator("#grid .null").count() == 1
    assert page.locator("#grid [role=gridcell]").nth(2).locator("span").get_attribute("title") == "x" * 500
    assert json.loads(cells(page)[3]) == [1, 2]


def test_an_answer_that_is_cut_says_so(console):
    page = console("SELECT i FROM range(30000) t(i)")
    assert "The first 20,000 rows; there are more." in page.locator("#about").inner_text()


def test_an_answer_is_downloaded_and_has_a_permalink(console):
    query = "SELECT label, value FROM singles ORDER BY abs(value) DESC"
    page = console(query)
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(started.value.path().read_text())))
    assert rows[0]["label"] == cells(page)[0]
    link = page.get_by_role("link", name="Permalink").get_attribute("href")
    other = console(address=link)
    other.wait_for_selector("#answer:visible")
    assert other.input_value("#query") == query
    assert cells(other) == cells(page)
    for form, first in (("Parquet", b"PAR1"), ("JSON", b"{")):
        with page.expect_download() as started:
            page.get_by_role("link", name=form).click()
        assert started.value.path().read_bytes().startswith(first)


def test_a_problem_is_one_line_and_its_place_is_selected(console):
    page = console()
    page.fill("#query", "SELECT 1\n  FORM runs")
    page.click("#run")
    page.wait_for_selector("#problem:visible")
    told = page.locator("#problem").inner_text()
    assert told.startswith('syntax error at or near "runs" (line 2, column 8)')
    assert "\n" not in told
    assert page.evaluate("getSelection().toString()") == "runs"
    run(page, "SELECT 2")
    assert page.locator("#problem").is_hidden()


def test_a_query_that_takes_too_long_is_cancelled(console):
    page = console()
    page.fill("#query", "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE hash(a.range + b.range) = 1")
    page.click("#run")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.")
    run(page, "SELECT 3 AS three")
    assert cells(page) == ["3"]


def test_queries_are_remembered_until_they_are_removed(console):
    page = console("SELECT 11 AS kept")
    run(page, "SELECT 12 AS forgotten")
    page.reload()
    page.get_by_text("History").click()
    assert page.locator("#history button:not(.forget)").all_inner_texts()[:2] == ["SELECT 12 AS forgotten", "SELECT 11 AS kept"]
    page.get_by_role("button", name="Remove SELECT 12 AS forgotten").click()
    page.get_by_role("button", name="SELECT 11 AS kept", exact=True).click()
    page.wait_for_selector("#grid [role=gridcell] >> text='11'")
    page.get_by_role("button", name="Remove all").click()
    assert page.locator("#history").inner_text() == "Nothing yet."


def test_names_of_the_schema_are_found_and_inserted(console):
    page = console()
    page.get_by_text("Tables and views").click()
    page.fill("#filter", "r2_singles")
    page.wait_for_selector("#schema details:visible")
    shown = page.locator("#schema details:visible > summary")
    assert {"runs", "run_summary"} <= set(shown.all_inner_texts())
    assert "singles" not in shown.all_inner_texts()
    page.fill("#query", "SELECT")
    page.get_by_role("button", name="Insert r2_singles").locator("visible=true").first.click()
    assert page.input_value("#query") == "SELECT r2_singles"


def test_an_answer_is_drawn(console):
    page = console("SELECT 'word ' || i AS word, i * i AS square FROM range(4) t(i)")
    page.locator("#charting > summary").click()
    assert [page.input_value(f"#{each}") for each in ("mark", "along", "shown")] == ["bars", "0", "1"]
    page.wait_for_selector("#chart svg.plot rect.bar")
    assert page.locator("#chart rect.bar").count() == 4
    page.select_option("#mark", "points")
    page.select_option("#along", "row")
    page.wait_for_selector("#chart svg.plot .mark")


def test_hostile_texts_are_only_texts(console):
    literal = HOSTILE.replace("'", "''")
    page = console(f"""SELECT '{literal}' AS "{HOSTILE.replace('"', '""')}", 1 AS x""")
    assert page.locator("#grid").inner_text().count("onerror") == 2
    page.locator("#charting > summary").click()
    page.wait_for_selector("#chart rect.bar")
    page.get_by_text("History").click()
    assert "onerror" in page.locator("#history").inner_text()
    assert page.locator("img, svg[onload]").count() == 0
    other = console(address="/sql?q=%3C%2Fscript%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    other.wait_for_selector("#problem:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_console_is_accessible_and_fits_a_phone(console, scheme):
    page = console("SELECT label, value, NULL AS nothing FROM singles", scheme=scheme)
    page.locator("#charting > summary").click()
    page.wait_for_selector("#chart svg.plot")
    page.get_by_text("Tables and views").click()
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 800})
    assert width(page) == 360
