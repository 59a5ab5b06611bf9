"""Pages opened in a browser without a network."""

from pathlib import Path

import pytest

#: Bytes of a page that can still be sent around.
LARGEST = 1_000_000

DRAWN = "() => [...document.querySelectorAll('[data-chart]')].every(place => place.querySelector('svg.plot'))"


class Tab:
    """A tab that opens one page after another: it compiles what pages have in common once. It notes what they complain about or ask for."""

    def __init__(self, browser):
        self._context = browser.new_context(offline=True)
        self.page = self._context.new_page()
        self.complaints = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message) or dialog.dismiss())
        self.page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else self.complaints.append(request.url))

    def open(self, path, width, scheme):
        assert Path(path).stat().st_size < LARGEST
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(media="screen", color_scheme=scheme)
        self.page.goto(f"file://{path}")
        self.page.wait_for_function(DRAWN)
        return self.page

    def close(self):
        self._context.close()


@pytest.fixture(scope="module")
def tabs(browser):
    opened = []
    yield opened
    for tab in opened:
        tab.close()


@pytest.fixture
def visit(browser, folder, tabs):
    """Open a page of the module's `folder` with the network cut; whatever it complains about or asks for fails the test."""
    used = []

    def go(name, width=1280, scheme="light"):
        if len(used) == len(tabs):
            tabs.append(Tab(browser))
        used.append(tabs[len(used)])
        return used[-1].open(f"{folder}/{name}.html", width, scheme)

    yield go
    complaints = [complaint for tab in used for complaint in tab.complaints]
    for tab in used:
        tab.complaints.clear()
    assert not complaints
