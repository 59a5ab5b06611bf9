"""Write the rules for the Prometheus operator, `prometheusrule.yaml`, from `rules.yml`: `python cluster/prometheus/generate.py`."""

from pathlib import Path
from textwrap import indent

import yaml

FOLDER = Path(__file__).parent
HEAD = """\
# Made of rules.yml by generate.py, for KubeRay where the Prometheus operator runs.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: raysp
  labels: {app.kubernetes.io/part-of: raysp}
spec:
"""


def built() -> str:
    """The rules as the operator's document."""
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))
    return HEAD + indent(yaml.safe_dump(rules, sort_keys=False, width=160, allow_unicode=True), "  ")


if __name__ == "__main__":
    (FOLDER / "prometheusrule.yaml").write_text(built(), encoding="utf-8")
