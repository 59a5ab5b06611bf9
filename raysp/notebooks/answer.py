"""An answer as a notebook shows it: HTML without scripts or links that stands by itself, of a size that a notebook can keep."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from raysp.game import Component
from raysp.notebooks.drawing import draw_heat, draw_text
from raysp.report import grid, layout, query_view, readings, words
from raysp.report.numbers import scale
from raysp.runs.queries import direction
from raysp.runs.result import Result, components_of
from raysp.runs.singles import ranked

#: Single effects and interactions in the tables, reasons of the verdict, queries of a training set, entries of each kind for each, and characters of a text.
SINGLES, SETS, REASONS, QUERIES, OF_EACH, TEXT = 6, 8, 6, 3, 3, 160
#: Components that are laid out at all: a notebook keeps what it shows.
MOST_COMPONENTS = 4_000

Rows = Sequence[Mapping[str, Any]]


def answer_html(result: Result) -> str:
    """The verdict with its reasons, a drawing of the answer, and the strongest interactions with their intervals."""
    return _template().render(**_content(result))


def _content(result: Result) -> dict[str, Any]:
    run: Mapping[str, Any] = result.summary
    about: dict[str, Any] = {"css": _css(), "run": run, "verdict": run["verdict"] or run["status"], "reasons": (run["reasons"] or ())[:REASONS]}
    about |= {
        "unfinished": words.UNFINISHED.get(run["status"]),
        "words": words,
        "text": None,
        "heats": (),
        "queries": (),
        "singles": (),
        "sets": (),
        "size": scale([]),
    }
    about |= {"readings": readings}
    if not run["game"]:
        return {**about, "question": f"Run {result.run_id} has not begun."}
    components = tuple(_legible(component) for component in components_of(result.components))
    kinds = list(dict.fromkeys(component.kind for component in components))
    interactions: list[dict[str, Any]] = [{**row, "labels": query_view.plain(row["labels"])} for row in result.interactions.to_pylist()]
    shown = interactions[:SETS]
    about |= {
        "question": words.question(run, kinds),
        "ends": scale([run["value_intact"], run["value_empty"]]),
        "sets": shown,
        "more": len(interactions) - len(shown),
        "size": scale(row[name] for row in shown for name in ("value", "lo", "hi", "estimate", "estimate_lo", "estimate_hi", "exact")),
    }
    if words.of_data(run):
        return about | {"queries": _queries(result, components)}
    singles = ranked(result.singles.to_pylist(), [component.label for component in components])
    effects = layout.Effects.of(singles, words.at_intact(run))
    about |= {"singles": singles[:SINGLES], "effects": effects, "meaning": words.readings_of(run, singles)}
    heads = int(run["game"]["description"].get("heads") or 0)
    found = grid.lay_out(components, effects, heads) if words.mechanistic(run) else None
    if found is not None:
        return about | {"heats": [draw_heat(panel) for panel in found.panels]}
    return about | {"text": draw_text(layout.lay_out(components[:MOST_COMPONENTS], effects, run["game"]["source"]), interactions)}


def _queries(result: Result, components: Sequence[Component]) -> list[query_view.Answered]:
    tables: dict[str, Rows] = {name: getattr(result, name).to_pylist() for name in query_view.TABLES}
    towards = direction(result.summary["game"]["description"])
    return query_view.answered(tables, [component.label for component in components], towards, top=OF_EACH, queries=QUERIES)


def _legible(component: Component) -> Component:
    """The component with a label of one line; those in a text are read from it."""
    return Component(
        component.index, query_view.plain(component.label) or component.label, component.kind, component.start, component.stop, component.size, component.layer, component.unit
    )  # fmt: skip


@cache
def _css() -> str:
    return resources.files("raysp.notebooks").joinpath("templates", "answer.css").read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment: Any = Environment(loader=PackageLoader("raysp.notebooks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"limit": TEXT}
    return environment.get_template("answer.html.j2")
