"""The files that watch a service agree with the metrics that it publishes, and the alerts with the cases in which they should fire."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray._private import ray_constants
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES
from typer.main import get_command
from watched import FOLDER, PANELS, ROOT, RULES

from raysp.cli import app
from raysp.runs.progress import Progress
from raysp.runtime.dashboard_panels import DASHBOARDS
from raysp.runtime.metric_definitions import METRICS
from raysp.runtime.metrics import Silence

GRAFANA = ROOT / "cluster/grafana"
#: Ray's own metrics of its nodes, and the one that Prometheus adds.
OTHERS = {f"ray_{name}" for name in METRICS_GAUGES} | {"up"}
EXPRESSIONS = {
    **{query.expression: panel.title for panel in PANELS for query in panel.queries},
    **{rule["expr"]: rule["alert"] for rule in RULES},
}


def names(expression):
    """The metrics that an expression reads, each with the labels that it names."""
    return {name: set(re.findall(r"(\w+)=", labels)) for name, labels in re.findall(r"\b(ray_\w+|up)\b(?:\{([^}]*)\})?", expression)}


def test_the_table_of_metrics_has_those_that_are_published():
    section = (ROOT / "raysp/runtime/README.md").read_text().split("## Metrics")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    assert [(row[0].strip("`"), row[1], tuple(re.findall(r"`(\w+)`", row[2])), row[3].replace("²", "2")) for row in rows] == [
        (each.name, each.kind, each.labels, each.help) for each in METRICS
    ]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=EXPRESSIONS.values())
def test_expressions_read_metrics_and_labels_that_exist(expression):
    ours = {each.shown: set(each.labels) for each in METRICS}
    found = names(expression)
    assert found
    assert found.keys() <= ours.keys() | OTHERS
    assert all(labels <= ours[name] for name, labels in found.items() if name in ours)


def test_every_metric_is_shown_by_a_panel():
    shown = {name for panel in PANELS for query in panel.queries for name in names(query.expression)}
    assert {each.shown for each in METRICS} <= shown


def generated(folder, expression):
    """The value of an expression about the module `generate` of a folder, in a process of its own."""
    code = f"import json, generate; print(json.dumps({expression}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


def test_the_dashboards_are_those_that_the_panels_make():
    pytest.importorskip("grafana_foundation_sdk")
    boards = generated(GRAFANA, "{each.uid: generate.built(each) for each in generate.DASHBOARDS}")
    assert boards == {path.stem: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}


def test_the_rules_of_the_operator_are_those_of_prometheus():
    assert generated(FOLDER, "generate.built()") == (FOLDER / "prometheusrule.yaml").read_text()
    assert yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())["spec"] == yaml.safe_load((FOLDER / "rules.yml").read_text())


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
def test_a_dashboard_has_a_place_and_a_number_for_each_panel(dashboard):
    shown = json.loads((GRAFANA / f"dashboards/{dashboard.uid}.json").read_text())["panels"]
    taken = [(each["gridPos"]["x"] + x, each["gridPos"]["y"] + y) for each in shown for x in range(each["gridPos"]["w"]) for y in range(each["gridPos"]["h"])]
    assert len(set(taken)) == len(taken)
    assert all(x < 24 for x, _ in taken)
    assert len({each["id"] for each in shown}) == len(shown) == sum(1 + len(row.panels) for row in dashboard.rows)


def test_grafana_finds_prometheus_and_the_dashboards_where_its_environment_says():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/raysp.yml").read_text())["providers"]
    assert (source["type"], source["url"], provider["options"]["path"]) == ("prometheus", "$PROMETHEUS_URL", "$RAYSP_DASHBOARDS")
    given = yaml.safe_load((ROOT / "cluster/docker/compose.yaml").read_text())["services"]["grafana"]["environment"]
    assert {"PROMETHEUS_URL", "RAYSP_DASHBOARDS"} <= given.keys()
    assert re.search(r"export PROMETHEUS_URL=\S+ RAYSP_DASHBOARDS=", (ROOT / "cluster/local.sh").read_text())


def test_prometheus_reads_the_file_in_which_ray_lists_its_nodes():
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert [Path(file).name for file in job["file_sd_configs"][0]["files"]] == [ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do_with_commands_that_exist(rule):
    texts = rule["annotations"]
    assert texts.keys() == {"summary", "description", "action"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    known = get_command(app).commands
    options = {flag for command in known.values() for parameter in command.params for flag in parameter.opts}
    for span in re.findall(r"`([^`]+)`", " ".join(texts.values())):
        words = span.split()
        assert words[0] in {"raysp", "ray"} or words[0] in options, span
        assert words[0] != "raysp" or words[1] in known, span


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    cases = [case for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"] for case in test["promql_expr_test"]]
    fires, quiet = (
        {name for case in cases if bool(case["exp_samples"]) is some for name in re.findall(r'alertname="(\w+)"', case["expr"])} for some in (True, False)
    )
    assert fires == quiet == {rule["alert"] for rule in RULES}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.parametrize("words", ["test rules rules_test.yml", "check config prometheus.yml", "check config compose.yml"])
def test_promtool_passes(words):
    done = subprocess.run(["promtool", *words.split()], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_is_silent_from_its_last_answer_or_step_on():
    now = [100.0]
    silence = Silence(lambda: now[0])
    told = Progress("one", "explore", done=64, total=600, rate=3.0)
    assert silence.observe([told, Progress("two")]) == {"one": 0.0, "two": 0.0}
    now[0] = 130.0
    assert silence.observe([Progress("one", "explore", done=64, total=600, rate=1.5, left=9.0, r2=0.5)]) == {"one": 30.0}  # no answer, only other estimates
    now[0] = 150.0
    assert silence.observe([Progress("one", "explore", done=128, total=600), Progress("two")]) == {"one": 0.0, "two": 0.0}
    now[0] = 151.0
    assert silence.observe([Progress("one", "fit", done=128, total=600)]) == {"one": 0.0}


def test_the_table_of_alerts_has_those_of_the_rules():
    section = (ROOT / "cluster/README.md").read_text().split("### Alerts")[1].split("\n#")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == [rule["alert"] for rule in RULES]
