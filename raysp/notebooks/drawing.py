"""Drawings of an answer that need no script: text with its arcs, and a heat map of parts of a model, each as the places of its shapes in one SVG image.

Text is set in a monospaced type, of which the width is known: every run of characters is given the width that the drawing counts on.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from raysp.report.grid import Cell, Panel
from raysp.report.layout import Layout, Piece
from raysp.report.words import shortened

#: Characters of a line, lines that are drawn, rows of a list, and interactions that are drawn.
COLUMNS, LINES, ROWS, ARCS = 84, 24, 40, 8
#: The width of a character, the height of a line of text with room for arcs above it, and of a row of a list, in pixels.
CHARACTER, LINE, ROW, MARGIN = 8.4, 46.0, 26.0, 60.0
#: The size of a cell of a heat map, the room for the names of layers, and steps of shading, each of which is one shape.
CELL, NAMES, SHADES = 20.0, 34.0, 8


@dataclass(frozen=True)
class Run:
    """Some characters on a line: of a component, or between components (`piece.index` None)."""

    piece: Piece
    text: str
    x: float
    y: float

    @property
    def width(self) -> float:
        """Its width."""
        return len(self.text) * CHARACTER

    @property
    def shade(self) -> float:
        """How strongly it is shaded."""
        return round(self.piece.strength * 0.55, 3)


@dataclass(frozen=True)
class Arc:
    """A path between the members of an interaction."""

    path: str
    kind: str
    width: float
    tip: str


@dataclass(frozen=True)
class Text:
    """A drawing of text. `left` is what is not drawn: lines of running text, or rows of a list."""

    runs: tuple[Run, ...]
    arcs: tuple[Arc, ...]
    width: float
    height: float
    listed: bool
    left: int


@dataclass(frozen=True)
class Shape:
    """All cells of a heat map with one tone and shade."""

    path: str
    tone: str
    shade: float


@dataclass(frozen=True)
class Label:
    """A text in a heat map."""

    text: str
    x: float
    y: float
    tip: str = ""


@dataclass(frozen=True)
class Heat:
    """A drawing of a heat map: outlines of all cells, shapes by shade, names of layers and columns, and values of the strongest."""

    outline: str
    shapes: tuple[Shape, ...]
    names: tuple[Label, ...]
    values: tuple[Label, ...]
    width: float
    height: float


def draw_text(layout: Layout, interactions: Sequence[Mapping[str, Any]]) -> Text:
    """Components where they stand in their text, or in rows if they are long, with arcs between those that interact most."""
    runs, left = _rows(layout) if layout.listed else _lines(layout)
    places = {run.piece.index: run for run in reversed(runs) if run.piece.index is not None}
    between = _beside if layout.listed else _above
    drawn = [row for row in interactions if all(index in places for index in row["components"])][:ARCS]
    largest = max((abs(row["value"]) for row in drawn), default=0.0) or 1.0
    arcs = [
        Arc(
            "".join(between(places[a], places[b]) for a, b in pairwise(sorted(row["components"]))),
            row["kind"] or "additive",
            round(1 + 2.5 * abs(row["value"]) / largest, 2),
            f"{shortened(row['labels'], 120)}: {row['kind'] or 'interaction'}",
        )
        for row in drawn
    ]
    width = max((run.x + run.width for run in runs), default=0.0) + 4
    height = max((run.y for run in runs), default=0.0) + 14
    return Text(tuple(runs), tuple(reversed(arcs)), width, height, layout.listed, left)


def _lines(layout: Layout) -> tuple[list[Run], int]:
    """Runs of running text, and the number of lines that are left out."""
    runs: list[Run] = []
    column = line = 0
    # Labels that are in no text follow one another.
    gap = "" if any(piece.index is None for piece in layout.pieces) else " "
    for piece in layout.pieces:
        for number, part in enumerate(f"{piece.text}{gap}".split("\n")):
            if number:
                column, line = 0, line + 1
            for word in _chunks(part):
                if column + len(word.rstrip()) > COLUMNS and column:
                    column, line = 0, line + 1
                if word.strip() and line < LINES:
                    shown = word.rstrip()
                    runs.append(Run(piece, shown, 4 + column * CHARACTER, 34 + line * LINE))
                column += len(word)
    return runs, max(0, line + 1 - LINES)


def _chunks(text: str) -> Iterator[str]:
    """The words of a text, each with the white space after it, and none longer than a line."""
    at = 0
    while at < len(text):
        end = at
        while end < len(text) and not text[end].isspace():
            end += 1
        while end < len(text) and text[end].isspace():
            end += 1
        end = min(end, at + COLUMNS)
        yield text[at:end].replace("\t", " ")
        at = end


def _rows(layout: Layout) -> tuple[list[Run], int]:
    """A run for each component, and the number of those that are left out."""
    shown = layout.pieces[:ROWS]
    runs = [Run(piece, shortened(" ".join(piece.text.split()), COLUMNS), MARGIN, 18 + number * ROW) for number, piece in enumerate(shown)]
    return runs, len(layout.pieces) - len(shown)


def _above(one: Run, other: Run) -> str:
    """An arch over words of a line; between lines, from the foot of the upper word to the head of the lower one."""
    a, b = (one, other) if (one.y, one.x) <= (other.y, other.x) else (other, one)
    x, to = a.x + a.width / 2, b.x + b.width / 2
    if a.y == b.y:
        lift = min(26.0, 8 + abs(to - x) / 14)
        return f"M{x:.1f} {a.y - 13:.1f}C{x:.1f} {a.y - 13 - lift:.1f} {to:.1f} {b.y - 13 - lift:.1f} {to:.1f} {b.y - 13:.1f}"
    return f"M{x:.1f} {a.y + 5:.1f}C{x:.1f} {a.y + 22:.1f} {to:.1f} {b.y - 30:.1f} {to:.1f} {b.y - 13:.1f}"


def _beside(one: Run, other: Run) -> str:
    """A bow in the margin, the wider the further apart the rows are."""
    edge, y, to = MARGIN - 5, one.y - 5, other.y - 5
    depth = min(MARGIN - 8, 12 + abs(to - y) / 8)
    return f"M{edge:.1f} {y:.1f}C{edge - 1.3 * depth:.1f} {y:.1f} {edge - 1.3 * depth:.1f} {to:.1f} {edge:.1f} {to:.1f}"


def draw_heat(panel: Panel) -> Heat:
    """Layers against heads, MLPs, blocks or neurons; deeper layers are further up."""
    shapes: dict[tuple[str, int], list[str]] = defaultdict(list)
    outline: list[str] = []
    names: list[Label] = []
    values: list[Label] = []
    width = CELL * (2.2 if panel.legible else 1)
    xs, x = [], NAMES
    for column in panel.columns:
        x += CELL / 2 if column.first else 0.0
        xs.append(x)
        if column.wide:
            names.append(Label(column.title or {"mlp": "MLP"}.get(column.kind, column.kind), x + width / 2, 12))
        x += width
    for number, (layer, cells) in enumerate(panel.rows):
        y = 18 + number * CELL
        names.append(Label(f"L{layer}", NAMES / 2, y + 14))
        for left, cell in zip(xs, cells, strict=True):
            if cell is None:
                continue
            square = f"M{left + 1:g} {y + 1:g}h{width - 2:g}v{CELL - 2:g}h{2 - width:g}z"
            outline.append(square)
            if cell.piece.strength:
                shapes[cell.piece.tone, _step(cell)].append(square)
            if cell.marked:
                values.append(Label(cell.piece.shown if panel.legible else "•", left + width / 2, y + 14, cell.piece.tip))
    drawn = tuple(Shape("".join(paths), tone, round(0.7 * step / SHADES, 3)) for (tone, step), paths in shapes.items())
    return Heat("".join(outline), drawn, tuple(names), tuple(values), x + 2, 20 + len(panel.rows) * CELL)


def _step(cell: Cell) -> int:
    """The shade of a cell: the square root of its strength, so that weak parts remain visible beside a dominant one."""
    return max(1, round(SHADES * cell.piece.strength**0.5))
