"""The components as they are laid out on the page: running text for words, a list for sentences, shaded by single effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from raysp.game import Component
from raysp.report.words import number, shortened

LONG = 28
"""Characters of a typical label from which components are listed one a line."""
LINE = 44
"""Characters that fit on a line in large type."""
ARCS = 60
"""Interactions that can be drawn."""
SHOWN = 8
"""Interactions that are drawn at first."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text: a component with its effect, or what stands between two (`index` None)."""

    text: str
    index: int | None = None
    effect: float | None = None
    strength: float = 0.0
    shown: str = "–"

    @property
    def tone(self) -> str:
        """Which way the component pushes the value."""
        return "none" if not self.effect else "pos" if self.effect > 0 else "neg"

    @property
    def tip(self) -> str:
        """The tooltip."""
        return f"{self.text.strip()}: {'not measured alone' if self.effect is None else self.shown}"


@dataclass(frozen=True)
class Layout:
    """The pieces in reading order; `listed` when each component has a line of its own; the largest |effect|."""

    pieces: tuple[Piece, ...]
    listed: bool
    largest: float

    @property
    def form(self) -> str:
        """How it is laid out: listed, large where the text is about a line, flow otherwise."""
        return "listed" if self.listed else "flow large" if sum(len(piece.text) for piece in self.pieces) <= LINE else "flow"


def lay_out(components: Sequence[Component], singles: Sequence[Mapping[str, Any]], source: str | None) -> Layout:
    """Components with their single effects, inside their source text where their offsets say where."""
    effects = {int(row["component"]): float(row["value"]) for row in singles}
    largest = max((abs(value) for value in effects.values()), default=0.0)
    listed = bool(components) and median(len(component.label) for component in components) >= LONG

    def piece(component: Component, text: str) -> Piece:
        effect = effects.get(component.index)
        return Piece(text, component.index, effect, abs(effect or 0.0) / largest if largest else 0.0, number(effect, like=largest))

    if listed or source is None or not _in_order(components, len(source)):
        return Layout(tuple(piece(component, component.label) for component in components), listed, largest)
    pieces: list[Piece] = []
    at = 0
    for component in components:
        assert component.start is not None
        assert component.stop is not None
        pieces += [Piece(source[at : component.start]), piece(component, source[component.start : component.stop])]
        at = component.stop
    pieces.append(Piece(source[at:]))
    return Layout(tuple(each for each in pieces if each.text or each.index is not None), listed, largest)


def arcs(interactions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The strongest interactions as the page's script draws them."""
    drawn = interactions[:ARCS]
    largest = max((abs(row["value"]) for row in drawn), default=0.0) or 1.0
    return [
        {
            "rank": row["rank"],
            "components": row["components"],
            "kind": row["kind"] or "additive",
            "strength": abs(row["value"]) / largest,
            "tip": f"{shortened(row['labels'], 120)}: {row['kind'] or 'interaction'}, {row['index']} {number(row['value'])}",
        }
        for row in drawn
    ]


def _in_order(components: Sequence[Component], length: int) -> bool:
    at = 0
    for component in components:
        if component.start is None or component.stop is None or not at <= component.start <= component.stop <= length:
            return False
        at = component.stop
    return True
