"""Runs side by side: chosen by search, what differs, how far effects agree, which interactions both found."""

import re

import pytest
from accessibility import serious, width
from playwright.sync_api import expect
from stored_runs import HEADS, HOSTILE, LARGE, WIDE, WORDS

from raysp.web.comparing import MOST_COMPARED

#: Rows that a table of any length may have in the document.
MOST_ROWS = 200


def test_runs_are_found_by_searching_and_compared_by_keyboard_alone(answered, open_page):
    first, second = answered["feature"], answered["other"]
    page = open_page(f"/compare?runs={first}")
    expect(page.locator("#picks")).to_contain_text("first")
    page.get_by_label("Add a run").focus()
    page.keyboard.type("second")
    option = page.get_by_role("option").filter(has_text="second").first
    expect(option).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"runs={first},{second}$"))
    expect(page.locator("#differences")).to_contain_text("lens.foil")
    expect(page.locator("#differences")).to_contain_text("dull")
    expect(page.locator("#agreement-words")).to_contain_text("over 6 shared components")
    page.get_by_role("button", name="Remove second").click()
    expect(page.locator("#comparison")).to_be_hidden()
    page.go_back()
    expect(page.locator("#comparison")).to_be_visible()


def test_components_are_aligned_by_label_and_sorted(service, answered, open_page):
    first, second = answered["feature"], answered["other"]
    page = open_page(f"/compare?runs={first},{second}")
    effects = [{row["label"]: row["average"] for row in service.client.get(f"/runs/{run}/singles").json()["rows"]} for run in (first, second)]
    apart = {label: abs(effects[0][label] - effects[1][label]) for label in effects[0]}
    rows = page.locator("#aligned .vbody .vrow")
    expect(rows.first).to_contain_text(max(apart, key=apart.get))
    expect(page.locator("#aligned-words")).to_contain_text("Effects are on average over contexts.")
    page.locator("#aligned").get_by_role("button", name="A", exact=True).click()
    expect(rows.first).to_contain_text(max(effects[0], key=effects[0].get))
    page.locator("#aligned").get_by_role("button", name="A", exact=True).click()
    expect(rows.first).to_contain_text(min(effects[0], key=effects[0].get))
    page.get_by_label("containing").fill("acting")
    expect(rows).to_have_count(1)
    expect(page.locator("#scatter svg.plot")).to_be_visible()


def test_three_runs_have_a_matrix_of_agreement(service, answered, open_page):
    runs = [answered["feature"], answered["other"], answered["mechanistic"]]
    page = open_page(f"/compare?runs={','.join(runs)}")
    told = service.client.get("/compare", params={"runs": ",".join(runs)}).json()
    assert told["pairs"][0]["runs"] == runs[:2]
    cell = page.locator("#matrix tbody tr").nth(0).locator("td").nth(1)
    expect(cell).to_contain_text(f"{told['pairs'][0]['singles_rank_correlation']:.2f}".replace("-", "−"))
    expect(page.locator("#matrix tbody tr").nth(0).locator("td").nth(2)).to_contain_text("0 shared")


def test_interactions_that_one_run_alone_found_are_told_from_shared_ones(service, open_page):
    page = open_page(f"/compare?runs={LARGE},{HEADS}")
    told = service.client.get("/compare", params={"runs": f"{LARGE},{HEADS}"}).json()
    alone = [row for row in told["interactions"] if row["ranks"][0] is None]
    page.get_by_role("button", name=f"only B ({len(alone)})").click()
    expect(page.locator("#sets .vbody .vrow").first).to_contain_text(alone[0]["labels"][0])
    assert all(row["possible"] == [False, True] for row in alone)
    expect(page.get_by_role("button", name="found by both (0)")).to_be_visible()


def test_thousands_of_components_keep_the_document_small(open_page):
    page = open_page(f"/compare?runs={WIDE},{HEADS}")
    scroller = page.locator("#aligned .vscroll")
    scroller.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    count = int(page.locator("#aligned-count").text_content().split(" of ")[1].split()[0].replace(",", ""))
    assert count > WORDS
    expect(page.locator(f'#aligned [aria-rowindex="{count + 1}"]')).to_be_visible()
    assert page.locator("tr, .vrow").count() < MOST_ROWS


@pytest.mark.parametrize(("window", "scheme"), [(1280, "dark"), (360, "light")])
def test_the_page_fits_the_window_and_is_accessible_whatever_runs_are_called(answered, open_page, window, scheme):
    page = open_page(f"/compare?runs={HOSTILE},{answered['feature']},{HEADS}", window, scheme)
    expect(page.locator("#verdicts")).to_contain_text("<u>name</u>")
    expect(page.locator("#aligned")).to_contain_text("</script><script>alert(1)</script>")
    assert width(page) <= window
    assert serious(page) == []


@pytest.mark.parametrize(
    ("runs", "status", "told"),
    [
        ("large", 422, "two to"),
        ("large,large", 422, "named twice"),
        ("large,nothing-like-it", 404, "is unknown"),
        (",".join(f"many-{i:03}" for i in range(MOST_COMPARED + 1)), 422, "two to"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_line(service, runs, status, told):
    answer = service.client.get("/compare", params={"runs": runs})
    assert answer.status_code == status
    assert told in answer.json()["detail"]


def test_a_comparison_is_fetched_once(service, answered):
    parameters = {"runs": f"{answered['feature']},{HEADS}"}
    tag = service.client.get("/compare", params=parameters).headers["etag"]
    assert service.client.get("/compare", params=parameters, headers={"If-None-Match": tag}).status_code == 304
