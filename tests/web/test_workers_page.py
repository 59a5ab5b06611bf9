"""The page of what a service works with, in a browser."""

import pytest
from accessibility import serious, width

HOSTILE = '</script><img src=x onerror="alert(1)">"><svg onload=alert(2)>'


@pytest.fixture
def paused(service, answered):
    """A run with a hostile name that stays under way, after one was answered."""
    assert answered["feature"]
    run_id = service.submit(service.question() | {"name": HOSTILE, "seed": 99, "explorer": {"kind": "proxyspex", "budget": 64}}, priority=2)
    service.client.post(f"/runs/{run_id}/pause")
    yield run_id
    service.client.post(f"/runs/{run_id}/cancel")


def test_nodes_models_runs_and_the_service_are_shown(open_page, service, paused):
    page = open_page("/workers")
    page.wait_for_selector("#nodes .state")
    evaluators = service.client.get("/service").json()["evaluators"]
    told = page.locator("#nodes").inner_text()
    assert f"Node {evaluators[0]['node'][:12]}" in told
    assert service.model in told
    page.wait_for_selector("#under-way tbody tr")
    row = page.locator("#under-way tbody tr").filter(has_text=HOSTILE)
    assert row.get_by_role("link").get_attribute("href") == f"/runs/{paused}"
    assert row.locator("td").nth(2).inner_text() == "2"
    assert page.locator("img").count() == 0
    assert str(service.client.get("/service").json()["store"]) in page.locator("#facts").inner_text()
    link = page.get_by_role("link", name="http")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")


def test_a_run_appears_and_goes_by_itself(open_page, service, paused):
    page = open_page("/workers")
    row = page.locator("#under-way tbody tr").filter(has_text=HOSTILE)
    row.wait_for()
    service.client.post(f"/runs/{paused}/cancel")
    row.wait_for(state="detached")


def test_a_service_that_does_not_answer_is_noticed_and_so_is_its_return(open_page, answered):
    assert answered["feature"]
    page = open_page("/workers")
    page.wait_for_selector("#facts dd")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/service") else None)
    page.context.set_offline(True)
    page.wait_for_selector("#absent:visible")
    page.context.set_offline(False)
    page.wait_for_selector("#absent", state="hidden")
    assert page.locator("#live.stale").count() == 0
    assert 2 <= len(asked) < 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(open_page, paused, scheme):
    page = open_page("/workers", scheme=scheme)
    page.wait_for_selector("#nodes .state")
    page.wait_for_selector("#under-way tbody tr")
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 800})
    assert width(page) == 360
