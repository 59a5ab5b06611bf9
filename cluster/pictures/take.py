"""Take the pictures of `cluster/README.md` of a service at work, with Chromium through Playwright.

`python cluster/pictures/take.py --dashboard http://HEAD:8265 --prometheus http://HEAD:9090 --folder cluster/pictures`; the token is read as Ray reads it.
"""

import argparse
import os
import shutil
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

#: Of a page without its menus, so that the pictures are small and can be read.
SIZE = {"width": 1360, "height": 560}
#: What the picture of Prometheus shows, and of how long.
SHOWN = "sum by (run, phase) (ray_raysp_run_done)"
SINCE = "5m"


def token() -> str:
    """The token of Ray."""
    return os.environ.get("RAY_AUTH_TOKEN") or Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser().read_text(encoding="utf-8").strip()


def taken(page: Page, address: str, text: str, path: Path) -> None:
    """A picture of a page once it shows a text."""
    page.goto(address)
    page.get_by_text(text).first.wait_for(timeout=120_000)
    page.wait_for_timeout(2000)  # what is drawn later: icons, and the bars of progress
    page.screenshot(path=path)


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dashboard", required=True)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport=SIZE)
        context.add_cookies([{"name": "ray-authentication-token", "value": token(), "url": given.dashboard, "httpOnly": True}])
        page = context.new_page()
        taken(page, f"{given.dashboard}/#/jobs", "RUNNING", given.folder / "jobs.png")
        taken(page, f"{given.dashboard}/#/actors", "raysp:scheduler (", given.folder / "actors.png")
        taken(page, f"{given.dashboard}/#/metrics", "Metrics", given.folder / "metrics.png")
        graph = urlencode({"g0.expr": SHOWN, "g0.tab": "0", "g0.range_input": SINCE})
        taken(page, f"{given.prometheus}/graph?{graph}", "phase=", given.folder / "prometheus.png")
        browser.close()


if __name__ == "__main__":
    main()
