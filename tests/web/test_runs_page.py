"""The list of runs: filters, live progress, steering, paging, choosing runs to compare."""

import re

import pytest
from accessibility import serious, width
from playwright.sync_api import expect
from stored_runs import HEADS, HOSTILE, LARGE

LONG = {"explorer": {"kind": "proxyspex", "budget": 100_000}}
PROMPT = "so many words that there are more masks of them than a run of this length will ever want to measure before somebody ends it"


@pytest.fixture
def long_run(service):
    """A run that lasts until it is cancelled."""
    run_id = service.submit(service.question(prompt=PROMPT) | LONG | {"name": "endless"})
    yield run_id
    service.client.post(f"/runs/{run_id}/cancel")


def row_of(page, run_id):
    return page.locator("li.run").filter(has=page.locator(f'a[href="/runs/{run_id}"]'))


def test_a_run_that_is_submitted_appears_and_ends_without_a_reload(service, open_page):
    page = open_page("/runs")
    expect(page.locator("#runs")).to_have_attribute("aria-busy", "false")
    run_id = service.submit(service.question() | {"seed": 7, "name": "watched"})
    row = row_of(page, run_id)
    expect(row).to_be_visible()
    expect(row.locator(".status")).to_have_text(re.compile("reliable|care|trust"), timeout=60_000)
    expect(row.locator(".middle")).to_contain_text("R²")


def test_a_run_is_paused_resumed_and_cancelled_after_a_question(long_run, open_page):
    page = open_page("/runs")
    row = row_of(page, long_run)
    expect(row.locator("progress")).to_have_attribute("value", re.compile(r"0\.\d+|0"), timeout=30_000)
    row.get_by_role("button", name="Pause endless").click()
    expect(row.locator(".status")).to_have_text("paused", timeout=30_000)
    row.get_by_role("button", name="Resume endless").click()
    row.get_by_role("button", name="Cancel endless").click()
    page.get_by_role("button", name="Keep it running").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(row.get_by_role("button", name="Cancel endless")).to_be_visible()
    row.get_by_role("button", name="Cancel endless").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(row.locator(".status")).to_have_text("cancelled", timeout=30_000)
    expect(row.get_by_role("button", name="Resume endless")).to_be_visible()


def test_filters_are_in_the_address_so_that_a_filtered_list_is_a_link(open_page):
    page = open_page("/runs")
    page.get_by_label("Lens").select_option("mechanistic")
    expect(page).to_have_url(re.compile(r"\?lens=mechanistic$"))
    page.get_by_label("Search").fill("three-lay")
    expect(page).to_have_url(re.compile("q=three-lay"))
    expect(page.locator("li.run")).to_have_count(1)
    again = open_page(page.url)
    expect(again.locator("li.run")).to_have_count(1)
    expect(again.get_by_label("Search")).to_have_value("three-lay")
    expect(row_of(again, HEADS)).to_be_visible()
    again.get_by_label("Search").fill("nothing like this")
    expect(again.locator("#unmatched")).to_be_visible()
    again.locator("#unmatched-clear").click()
    expect(again).to_have_url(re.compile("/runs$"))


def test_long_lists_come_in_pages(open_page):
    page = open_page("/runs?set=many")
    expect(page.locator("#count")).to_have_text("1 to 50 of 120 runs")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#count")).to_have_text("51 to 100 of 120 runs")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#count")).to_have_text("101 to 120 of 120 runs")
    expect(page.locator("li.run")).to_have_count(20)
    expect(page.get_by_role("link", name="Older")).to_be_hidden()
    page.go_back()
    expect(page.locator("#count")).to_have_text("51 to 100 of 120 runs")


def test_runs_are_chosen_by_keyboard_and_compared(open_page):
    page = open_page("/runs?status=done")
    for run_id in (LARGE, HEADS):
        row_of(page, run_id).get_by_role("checkbox").focus()
        page.keyboard.press("Space")
    expect(page.locator("#chosen-count")).to_have_text("2 chosen")
    page.get_by_role("link", name="Compare", exact=True).last.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/compare\?runs={LARGE},{HEADS}$"))


@pytest.mark.parametrize(("window", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_list_fits_the_window_and_is_accessible(open_page, window, scheme):
    page = open_page("/runs?status=done", window, scheme)
    expect(row_of(page, HOSTILE)).to_be_visible()
    expect(row_of(page, HOSTILE).get_by_role("link")).to_have_text("<u>name</u>")
    assert width(page) <= window
    assert serious(page) == []
