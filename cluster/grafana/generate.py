"""Write the dashboards in `dashboards/` from the panels in `raysp/runtime/dashboard_panels.py`: `python cluster/grafana/generate.py`."""

import json
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from raysp.runtime.dashboard_panels import DASHBOARDS, Dashboard, Panel

FOLDER = Path(__file__).parent / "dashboards"
#: Grafana's grid has 24 columns: two panels beside each other.
WIDTH, HEIGHT = 12, 8
#: The reader chooses among the Prometheus servers that Grafana knows.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def chart(panel: Panel) -> timeseries.Panel:
    """A panel over time with the legend in a table below it."""
    drawn = timeseries.Panel().title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE).span(WIDTH).height(HEIGHT).min(0)
    if panel.most is not None:
        drawn.max(panel.most)
    if panel.style == "stacked":
        drawn.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
    drawn.legend(legend.show_legend(True).calcs(["lastNotNull", "max"]))
    for number, query in enumerate(panel.queries):
        drawn.with_target(prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expression).legend_format(query.legend).datasource(SOURCE))
    return drawn


def built(description: Dashboard) -> str:
    """A dashboard as JSON, as it is committed."""
    board = dashboards.Dashboard(description.title).uid(description.uid).description(description.description).tags(["raysp"])
    board.refresh("10s").time("now-1h", "now").timezone("browser").editable()
    board.with_variable(dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    if description.by_run:
        known = "label_values(ray_raysp_seconds_since_progress, run)"
        runs = dashboards.QueryVariable("run").label("Run").datasource(SOURCE).query(known).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        board.with_variable(runs.multi(True).include_all(True).all_value(".*"))
    numbers = count(1)
    for row in description.rows:
        board.with_row(dashboards.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            board.with_panel(chart(panel).id(next(numbers)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all dashboards."""
    for each in DASHBOARDS:
        (FOLDER / f"{each.uid}.json").write_text(built(each), encoding="utf-8")


if __name__ == "__main__":
    main()
