"""What tests of the watching of a service share: the panels' and alerts' expressions, and a Prometheus that scrapes a Ray of a test."""

import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from services import free_port
from waiting import until

from raysp.runtime.dashboard_panels import DASHBOARDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster/prometheus"
RULES_FILE = FOLDER / "rules.yml"
PANELS = [panel for dashboard in DASHBOARDS for row in dashboard.rows for panel in row.panels]
RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]


def hurried(rules):
    """Rules for which a second is a minute: what they wait for, look back at, and hold against a number of seconds is divided by sixty."""
    rules = re.sub(r"\b(\d+)s\b", lambda found: f"{max(int(found[1]) // 60, 1)}s", rules)
    rules = re.sub(r"\b(\d+)m\b", r"\1s", rules)
    return re.sub(r"(_seconds\w*\)) > (\d+)", lambda found: f"{found[1]} > {int(found[2]) / 60:g}", rules)


class Prometheus:
    """A Prometheus that asks the nodes of a Ray every second, and evaluates the rules as often."""

    def __init__(self, folder, discovery, rules):
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(discovery)], "refresh_interval": "1s"}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rules.yml").write_text(rules)
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/api/v1/"
        words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        self.process = subprocess.Popen(["prometheus", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, path, **words):
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(words)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """What an expression gives now. Raises for one that is not valid."""
        return self.ask("query", query=expression.replace("$__rate_interval", "15s").replace("$run", ".*"))["result"]

    def firing(self):
        """The alerts that fire, by name."""
        return {alert["labels"]["alertname"]: alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def wait(self, what, seconds=60):
        """Wait until a function of this server is true; what it returned."""

        def found():
            time.sleep(0.2)
            with contextlib.suppress(OSError):  # it does not answer yet
                return what(self)
            return None

        return until("Prometheus", found, seconds)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
