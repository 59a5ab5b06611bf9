"""The parts of a page that only data runs have: influential examples by query, scores of attribution methods, and selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysp.game import Component
from raysp.report import figures, query_view
from raysp.report.query_view import Answered
from raysp.runs.queries import direction

TABLES = (*query_view.TABLES, "query_heldout", "data_scores", "selections")
TOP = 5
"""Entries of each kind shown for a query."""
QUERIES = 40
"""Queries on the page; the rest are in the store."""
SCATTERED = 120
"""Held-out subsets in a query's scatter."""
LISTED = 120
"""The largest number of components that are all listed."""

TableRows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Told:
    """What the template shows: `queries`, of `count` in all; `mean_lds` with interactions and without; figures by name."""

    queries: list[Answered]
    count: int
    examples: int
    mean_lds: tuple[float, float] | None
    scores: list[tuple[str, list[dict[str, Any]]]]
    selections: TableRows
    charts: dict[str, figures.Chart]
    listed: bool

    def largest(self, query: Answered) -> float:
        """The strongest single effect on a query, which scales its bars."""
        return max((abs(effect.value) for effect in (*query.helpful, *query.harmful)), default=0.0)


def told(run: Mapping[str, Any], tables: Mapping[str, TableRows], components: Sequence[Component]) -> Told:
    """From the run's row and the rows of its `TABLES`."""
    towards = direction(run["game"]["description"])
    queries = query_view.answered(tables, [component.label for component in components], towards, top=TOP, queries=QUERIES)
    scored = [row for row in tables["query_scores"] if row["lds"] is not None and row["lds_singles"] is not None]
    heldout: dict[int, list[Mapping[str, Any]]] = {}
    for row in tables["query_heldout"]:
        heldout.setdefault(row["query"], []).append(row)
    shown = {query.query for query in queries}
    charts = {
        "lds": figures.fits_of_queries([row | {"label": query_view.plain(row["label"])} for row in map(dict, scored) if row["query"] in shown]),
        **{f"query-{number}": figures.heldout_scatter(rows[:SCATTERED]) for number, rows in heldout.items() if number in shown},
    }
    lds, lds_singles = (sum(row[name] for row in scored) / max(len(scored), 1) for name in ("lds", "lds_singles"))
    return Told(
        queries,
        len(tables["queries"]),
        len(tables["examples"]),
        (lds, lds_singles) if scored else None,
        by_metric(tables["data_scores"]),
        tables["selections"],
        {name: chart for name, chart in charts.items() if chart},
        len(components) <= LISTED,
    )


def by_metric(rows: TableRows) -> list[tuple[str, list[dict[str, Any]]]]:
    """Mean scores over all queries, grouped by metric in order of appearance, the best method first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["query"] is None and row["score"] is not None:
            found.setdefault(row["metric"], []).append(dict(row))
    return [(metric, sorted(group, key=lambda row: (row["k"] or 0, -row["score"]))) for metric, group in found.items()]


def legible(components: Sequence[Component]) -> tuple[Component, ...]:
    """The components with labels made safe to print on one line."""
    return tuple(replace(component, label=query_view.plain(component.label)) for component in components)


def named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with labels made safe to print on one line."""
    return [row | {name: query_view.plain(row[name]) for name in ("label", "labels") if row.get(name)} for row in rows]
