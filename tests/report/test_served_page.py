"""The same page, served beside its styles and scripts under a policy without anything inline, with parts added by who serves it."""

import pages
import pytest
from jinja2 import DictLoader

from raysp.report.page import render_run, run_page
from raysp.report.render import SCRIPTS, STYLES, asset, environment
from raysp.store import Store

MORE = """{% extends "run.html.j2" %}
{% block head %}<link rel="stylesheet" href="{{ assets }}/charts.css">{% endblock %}
{% block navigation %}<nav>{{ user }}</nav>{% endblock %}
{% block actions %}<section id="actions"><button>Ask again</button></section>{% endblock %}
{% block sections %}<section id="more">More</section>{% endblock %}
{% block scripts %}<script src="/own.js"></script>{% endblock %}
"""
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The texts of all addresses."""
    with Store.open(tmp_path_factory.mktemp("served") / "s.duckdb") as store:
        content = run_page(store, pages.forty_words(store))
    own = "document.addEventListener('whatif', ({ detail }) => { document.getElementById('whatif-exact').textContent = String(detail.removed); });"
    page = render_run(
        content | {"user": "<b>someone</b>"}, assets="/static/report/", template="more.html.j2", within=environment(DictLoader({"more.html.j2": MORE}))
    )
    return {"/": page, "/own.js": own} | {f"/static/report/{name}": asset(name) for name in (*STYLES, *SCRIPTS)}


def test_a_served_page_works_under_a_strict_policy_with_links_to_its_styles_and_scripts(served, browser):
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def answer(route):
        path = route.request.url.removeprefix("http://raysp.test")
        kind = {"css": "text/css", "js": "text/javascript"}.get(path.rpartition(".")[2], "text/html")
        if path not in served:
            return route.fulfill(status=204)
        return route.fulfill(body=served[path], content_type=f"{kind}; charset=utf-8", headers={"Content-Security-Policy": POLICY})

    page.route("**/*", answer)
    page.goto("http://raysp.test/")
    assert page.locator("#arcs .arc").count() == 8
    assert page.locator("[data-chart] svg.plot").count() == page.locator("[data-chart]").count() > 0
    assert page.locator("nav").text_content() == "<b>someone</b>"
    order = "document.querySelector('.verdict').compareDocumentPosition(document.getElementById('actions')) & Node.DOCUMENT_POSITION_FOLLOWING"
    assert page.evaluate(order)
    assert page.locator("#more").is_visible()
    page.evaluate("document.dispatchEvent(new CustomEvent('whatif-set', { detail: { removed: [3, 5] } }))")
    assert page.locator("#whatif-exact").text_content() == "3,5"
    page.close()
    assert complaints == []


def test_a_served_page_holds_no_style_and_no_script(served):
    assert "<style" not in served["/"]
    assert "<script>" not in served["/"]
    assert "Content-Security-Policy" not in served["/"]


def test_no_other_file_is_an_asset():
    with pytest.raises(ValueError, match="not an asset"):
        asset("run.html.j2")
