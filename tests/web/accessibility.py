"""What axe finds wrong with a page."""

from axe_playwright_python.sync_playwright import Axe


def serious(page):
    """The serious and critical findings on a page, each with the elements that it is about."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], [node["html"][:160] for node in each["nodes"]]) for each in found if each["impact"] in ("serious", "critical")]


def width(page):
    """The width of what the page holds, in pixels; more than the window if it has to be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth")
