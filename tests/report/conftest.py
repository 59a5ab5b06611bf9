"""A browser without a network, and a page opened in it."""

import os
import shutil

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: What Plotly says where a window changes its size faster than a busy machine draws; it then draws once more.
BUSY = "Too many auto-margin redraws."


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def visit(browser, folder):
    """Open a page of the module's `folder` with the network cut; whatever it complains about or asks for fails the test."""
    opened = []

    def go(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: None if message.text.endswith(BUSY) else complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else complaints.append(request.url))
        page.goto(f"file://{folder}/{name}.html")
        page.wait_for_function("[...document.querySelectorAll('[data-chart]')].every(place => place.querySelector('svg.main-svg'))")
        opened.append((context, complaints))
        return page

    yield go
    for context, complaints in opened:
        context.close()
        assert not complaints
