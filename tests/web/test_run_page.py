"""The page of a run: while it is under way, its answer by permalink, what-if with exact values, and what can be taken along."""

import re
from itertools import combinations

import httpx
import pytest
from accessibility import serious, width
from playwright.sync_api import expect
from stored_runs import HOSTILE, INTERACTIONS, LARGE, TAILS, WORDS

LENSES = ("feature", "mechanistic", "data")
#: Rows that a table of any length may have in the document.
MOST_ROWS = 200


def without(page):
    """The components that the address says are removed."""
    return page.evaluate("new URLSearchParams(location.hash.slice(1)).get('without')")


def switch_on(page):
    """Begin to remove words by clicking them."""
    page.locator(".legend [data-whatif-mode]").click()


def without_each(service, run_id, size=1):
    """The predictions without each set of so many components, and the value of the whole input."""
    row = service.client.get(f"/runs/{run_id}").json()
    sets = [list(members) for members in combinations(range(row["n"]), size)]
    return service.client.post(f"/runs/{run_id}/predict", json={"removed": sets}).json()["predictions"], row["value_intact"]


def search(page, threshold, most):
    """Ask for the smallest set."""
    page.locator("#exact-flip summary").click()
    page.get_by_label("value to cross").fill(repr(threshold))
    page.get_by_label("at most so many words").fill(str(most))
    page.get_by_role("button", name="Find it").click()


def test_the_page_of_a_run_under_way_becomes_its_answer(service, open_page):
    words = " ".join(f"becoming{i}" for i in range(13))  # of which no other test has measured anything
    run_id = service.submit(service.question(prompt=words) | {"name": "becoming", "explorer": {"kind": "proxyspex", "budget": 1000}})
    service.client.post(f"/runs/{run_id}/pause")
    page = open_page(f"/runs/{run_id}")
    expect(page.locator("h1")).to_have_text("becoming")
    service.client.post(f"/runs/{run_id}/resume")
    expect(page.locator("#whatif")).to_be_visible(timeout=60_000)
    expect(page.locator("h1")).to_have_text(re.compile("^Why does .*tiny say “good” rather than “bad”\\?$"))
    expect(page.locator("#text .c")).to_have_count(13)


def test_a_run_that_failed_says_why_and_can_be_resumed(service, open_page):
    question = service.question(target=" good morning to you all and everybody else", value="class_logit")
    run_id = service.submit(question | {"name": "failing"})
    page = open_page(f"/runs/{run_id}")
    expect(page.locator("#standing")).to_have_text("Failed", timeout=60_000)
    assert service.client.get(f"/runs/{run_id}").json()["error"] in page.locator("#error").text_content()
    expect(page.get_by_role("button", name="Resume failing")).to_be_visible()
    assert serious(page) == []


def test_a_link_to_a_what_if_leads_back_to_it_after_logging_in(service, answered, browser):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{service.url}/runs/{answered['feature']}#without=1,3-4")
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_label("Token of this service").fill(service.token)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{service.url}/runs/{answered['feature']}#without=1,3-4")
    expect(page.locator("#whatif-count")).to_have_text("3 of 6 removed:")
    context.close()


def test_names_beginnings_and_last_lead_to_the_address_with_the_id(service, answered, open_page):
    run_id = answered["feature"]
    page = open_page("/runs/first")
    expect(page).to_have_url(f"{service.url}/runs/{run_id}")
    missing = httpx.get(f"{service.url}/runs/no-such-run", cookies={service.cookie["name"]: service.cookie["value"]})
    assert missing.status_code == 404
    assert "No such run" in missing.text


def test_a_word_is_removed_by_a_click_predicted_at_once_and_measured_on_demand(service, answered, open_page):
    run_id = answered["feature"]
    page = open_page(f"/runs/{run_id}")
    switch_on(page)
    page.locator("#text .c").nth(1).click()
    predicted = service.client.post(f"/runs/{run_id}/predict", json={"removed": [1]}).json()["value"]
    assert float(page.locator("#whatif-value").text_content().replace("−", "-")) == pytest.approx(predicted, rel=1e-3)
    assert without(page) == "1"
    page.locator("#text .c").nth(2).click()
    assert without(page) == "1-2"
    expect(page.locator("#exact-value")).to_have_text("not measured")
    page.locator("#exact-measure").click()
    expect(page.locator("#exact-status")).to_contain_text("Exact value", timeout=60_000)
    found = service.client.post(f"/runs/{run_id}/predict", json={"removed": [1, 2]}).json()
    row = page.locator("#exact-rows tr").first.locator("td")
    assert float(row.nth(2).text_content().replace("−", "-")) == pytest.approx(found["measured"], rel=0.01)
    assert float(row.nth(3).text_content().replace("−", "-")) == pytest.approx(found["value"] - found["measured"], abs=0.01 * abs(found["value"]))
    assert float(page.locator("#exact-value").text_content().partition("prediction")[0].replace("−", "-")) == pytest.approx(found["measured"], rel=0.01)
    inside = found["lo"] <= found["measured"] <= found["hi"]
    told = "as the run measured it" if not found["compared"] else "within its interval" if inside else "outside its interval"
    expect(page.locator("#exact-status")).to_contain_text(told)
    page.locator("#whatif-restore").click()
    assert without(page) is None
    switch_on(page)  # and off: while words are removed, the panel lies over the text and is small
    page.locator("#exact-rows button").first.click()
    assert without(page) == "1-2"
    expect(page.locator("#text .c.off")).to_have_count(2)


def test_both_readings_are_on_the_page_and_what_if_follows_tails_and_points(service, open_page):
    page = open_page(f"/runs/{TAILS}")
    expect(page.locator("[data-chart=singles] .key-name")).to_have_text(["on average", "at this input"])
    expect(page.locator(".ends.near dt")).to_have_text(["R² around this input", "adding up single effects there"])
    for removed in ([], [4], [3, 17, 40]):
        predicted = service.client.post(f"/runs/{TAILS}/predict", json={"removed": removed}).json()["value"]
        assert page.evaluate("removed => raysp.whatIf.predict(removed).value", removed) == pytest.approx(predicted, rel=1e-9)


def test_the_smallest_set_is_found_verified_and_shown(service, open_page):
    run_id = service.finished(service.submit(service.question() | {"explorer": {"kind": "exhaustive"}}))  # its surrogate is exact
    predictions, intact = without_each(service, run_id)
    best = max(predictions, key=lambda each: abs(each["measured"] - intact))
    page = open_page(f"/runs/{run_id}")
    search(page, (best["measured"] + intact) / 2, 3)
    expect(page.locator("#flip-found")).to_contain_text("verified with the model", timeout=60_000)
    assert without(page) == str(best["removed"][0])
    expect(page.locator("#exact-rows tr")).to_have_count(1)


def test_a_surrogate_that_was_wrong_about_the_smallest_set_is_told(service, open_page):
    service.finished(service.submit(service.question() | {"explorer": {"kind": "exhaustive"}}))  # every value is known
    run_id = service.finished(service.submit(service.question() | {"explorer": {"kind": "singles", "budget": 40}}))  # interactions are not
    predictions, intact = without_each(service, run_id)
    # One way or the other, it proposes a word without which the value is not beyond what it predicts.
    up, down = (max(predictions, key=lambda each: sign * each["value"]) for sign in (1, -1))
    sides = [(each, sign, sign * max(sign * intact, sign * each["measured"])) for each, sign in ((up, 1), (down, -1))]
    best, missed = next((each, beyond) for each, sign, beyond in sides if sign * each["value"] > sign * beyond)
    page = open_page(f"/runs/{run_id}")
    search(page, (best["value"] + missed) / 2, 1)
    expect(page.locator("#flip-found")).to_contain_text("The surrogate was wrong about it.", timeout=60_000)
    assert without(page) is None
    expect(page.locator("#exact-rows tr td").first).to_have_text(best["labels"][0])


def test_that_no_set_was_found_is_said_plainly(answered, open_page):
    page = open_page(f"/runs/{answered['feature']}")
    search(page, 1e9, 2)
    expect(page.locator("#flip-found")).to_contain_text("predicts that no set of at most 2 brings the value above", timeout=60_000)
    page.get_by_label("value to cross").fill("soon")
    page.get_by_role("button", name="Find it").click()
    expect(page.get_by_label("value to cross")).to_be_focused()
    expect(page.get_by_label("value to cross")).to_have_attribute("aria-invalid", "true")


@pytest.mark.parametrize("lens", ["mechanistic", "data"])
def test_heads_and_examples_are_removed_and_measured_too(answered, open_page, lens):
    page = open_page(f"/runs/{answered[lens]}#without=0")
    page.locator("#exact-measure").click()
    expect(page.locator("#exact-status")).to_contain_text("Exact value", timeout=120_000)
    expect(page.locator("#exact-rows tr")).to_have_count(1)


def test_tables_the_report_and_the_spec_are_taken_along(service, answered, open_page):
    run_id = answered["feature"]
    page = open_page(f"/runs/{run_id}")
    with page.expect_download() as download:
        page.get_by_role("link", name="single effects as csv", exact=True).click()
    assert download.value.suggested_filename == f"{run_id}-singles.csv"
    rows = download.value.path().read_text().splitlines()
    assert len(rows) == 1 + service.client.get(f"/runs/{run_id}/singles").json()["total"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Report as a file").click()
    report = download.value.path().read_text()
    assert "say “good” rather than “bad”?" in re.sub("<[^>]+>", "", report)
    assert "Content-Security-Policy" in report
    expect(page.get_by_role("link", name="Ask again with")).to_have_attribute("href", f"/ask?from={run_id}")
    page.get_by_role("tab", name="YAML").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#text-command")).to_contain_text("raysp feature")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#text-python")).to_contain_text("import raysp")
    expect(page.locator("#text-yaml")).to_be_hidden()
    query = page.get_by_role("link", name="Query in SQL").get_attribute("href").partition("q=")[2]
    assert service.client.get(f"/sql?q={query}").json()["columns"]


def test_a_what_if_needs_nothing_but_the_keyboard(answered, open_page):
    page = open_page(f"/runs/{answered['feature']}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator(".legend [data-whatif-mode]").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert without(page) == "1"
    page.locator("#exact-measure").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#exact-status")).to_contain_text("Exact value", timeout=60_000)


@pytest.mark.parametrize(("window", "scheme"), [(1280, "dark"), (360, "light")])
@pytest.mark.parametrize("lens", LENSES)
def test_answers_fit_the_window_and_are_accessible(answered, open_page, lens, window, scheme):
    page = open_page(f"/runs/{answered[lens]}", window, scheme)
    expect(page.locator("#exact-measure")).to_be_visible()
    page.locator("#exact-flip summary").click()
    assert width(page) <= window
    assert serious(page) == []


def test_hostile_text_is_only_text(open_page):
    page = open_page(f"/runs/{HOSTILE}#without=1")
    expect(page.locator("#whatif-gone")).to_contain_text("</script><script>alert(1)</script>")
    expect(page.locator("h1")).to_contain_text("</script><img src=x onerror=alert(2)>")
    assert page.locator("img").count() == 0


def test_thousands_of_words_and_interactions_keep_the_document_small(open_page):
    page = open_page(f"/runs/{LARGE}")
    expect(page.locator("#text .c")).to_have_count(WORDS)
    scroller = page.locator("#all-interactions .vscroll")
    scroller.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    expect(page.locator(f'#all-interactions [aria-rowindex="{INTERACTIONS + 1}"]')).to_be_visible()
    assert page.locator("tr, .vrow").count() < MOST_ROWS
