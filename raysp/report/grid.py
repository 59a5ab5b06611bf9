"""The layout of parts of a model on the page: layers against heads, shaded by single effect, and the nodes of a graph over them.

Deeper layers are further up in both the heat map and the graph, so that positions in the two correspond.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from raysp.game import Component
from raysp.report.layout import Effects, Piece, shade

KINDS = ("head", "mlp", "block", "neurons")
"""The kinds of components, in the order of their columns."""
TITLES = {"head": "head", "mlp": "MLP", "block": "block", "neurons": "neurons from"}
SHOWN = 12
"""Interactions drawn at first."""
ALL_MARKED = 42
"""The largest number of cells that all show their value; with more, only the strongest `MARKED` do."""
MARKED = 12
LEGIBLE = 16
"""The largest number of columns at which a cell is wide enough for a value."""
FITTING = {"head": (24, 9), "neurons": (16, 7)}
"""Column numbers that fit side by side on a desktop and on a phone; those of neurons are longer."""
DENSE, FITTING_DENSE = 40, (16, 11)
"""The number of columns above which a heat map scrolls sideways on a phone, and the column numbers that fit then."""
COLUMNS = 96
"""Columns of neurons; with more groups, neighbours share a column that shows the strongest of them."""
LATTICE = 1000
"""The largest number of components that all have a node; with more, only those that interact do."""

Place = tuple[int, str, int]


@dataclass(frozen=True)
class Cell:
    """A component in its cell. `name` distinguishes it within its layer; `marked` is whether its value is shown."""

    piece: Piece
    name: str
    marked: bool

    @property
    def shade(self) -> int:
        """Its step of shading: that of the square root of its strength, so that weak parts remain visible beside a dominant one."""
        return shade(self.piece.strength**0.5)


@dataclass(frozen=True)
class Column:
    """A column: heads of one number, all MLPs, all blocks, or groups of neurons that begin at the same one."""

    kind: str
    unit: int
    first: bool
    wide: bool
    narrow: bool

    @property
    def title(self) -> str:
        """The heading of the column, below that of its kind."""
        return str(self.unit) if self.kind in ("head", "neurons") else ""


@dataclass(frozen=True)
class Panel:
    """A heat map: columns, and rows of a layer and its cells (None where the game has no such component), the deepest first."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[int, tuple[Cell | None, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The kinds side by side, with the number of their columns."""
        kinds = [column.kind for column in self.columns]
        return [(TITLES[kind], kinds.count(kind)) for kind in KINDS if kind in kinds]

    @property
    def dense(self) -> bool:
        """Whether it is wider than a phone."""
        return len(self.columns) > DENSE

    @property
    def legible(self) -> bool:
        """Whether a cell is wide enough for a value."""
        return len(self.columns) <= LEGIBLE

    @property
    def form(self) -> str:
        """The CSS class of the height of the rows."""
        return "tall" if len(self.rows) <= 8 else "low" if len(self.rows) > 16 else ""


@dataclass(frozen=True)
class Grid:
    """Heads, MLPs and blocks in one heat map and neurons, of which there are far more, in another.

    `cells` are all components, each with its layer, its kind and the first unit of its column; `largest` is the largest |effect|.
    """

    panels: tuple[Panel, ...]
    cells: tuple[tuple[Place, Cell], ...]
    largest: float

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the rows, the deepest first."""
        layers = [layer for panel in self.panels for layer, _ in panel.rows]
        return tuple(range(max(layers), min(layers) - 1, -1))

    @property
    def binned(self) -> bool:
        """Whether some components share a cell."""
        return len({place for place, _ in self.cells}) < len(self.cells)

    @property
    def maps(self) -> list[dict[str, Any]]:
        """The heat maps at small size, for drawing the components kept: width, height, and x, y and component of each cell; empty if components share cells."""
        return [] if self.binned else [_small(panel) for panel in self.panels]


def lay_out(components: Sequence[Component], effects: Effects, heads: int) -> Grid | None:
    """Parts of a model with `heads` heads a layer in their cells; None if some have no position or share one."""
    places = [(component.layer, component.kind, component.unit or 0) for component in components]
    layers = [component.layer for component in components if component.layer is not None]
    if not layers or len(layers) < len(places) or len(set(places)) < len(places) or {kind for _, kind, _ in places} - set(KINDS):
        return None
    strongest = sorted(components, key=lambda component: -abs(effects.values.get(component.index, 0.0)))
    marked = {component.index for component in (strongest if len(strongest) <= ALL_MARKED else strongest[:MARKED])}
    kinds = tuple(kind for kind in KINDS if any(component.kind == kind for component in components))
    firsts = {kind: _columns_of({unit for _, other, unit in places if other == kind}, kind, heads) for kind in kinds}
    cells = tuple(
        ((layer, component.kind, firsts[component.kind][component.unit or 0]), _cell(component, effects, marked))
        for layer, component in zip(layers, components, strict=True)
    )
    found: dict[Place, Cell] = {}
    for place, cell in cells:
        if place not in found or cell.piece.strength > found[place].piece.strength:
            found[place] = cell
    together = [kinds[:-1], kinds[-1:]] if kinds[-1] == "neurons" and len(kinds) > 1 else [kinds]
    panels = tuple(_panel(found, [(kind, unit) for kind in part for unit in sorted(set(firsts[kind].values()))]) for part in together)
    return Grid(panels, cells, effects.largest)


def graph(grid: Grid, members: Collection[int]) -> dict[str, Any]:
    """What the page's script draws the graph of interactions from, given the components that interact.

    `layers` and `columns`, and for each component a node: its index, row, column and text. Of the neurons only those that interact have columns.
    """
    shown = [(place, cell) for place, cell in grid.cells if cell.piece.index in members or (place[1] != "neurons" and len(grid.cells) <= LATTICE)]
    taken = {place[1:] for place, _ in shown}
    columns = [column for panel in grid.panels for column in panel.columns if column.kind == "head" or (column.kind, column.unit) in taken]
    row, at = {layer: i for i, layer in enumerate(grid.layers)}, {(column.kind, column.unit): i for i, column in enumerate(columns)}
    return {
        "layers": grid.layers,
        "columns": [{"kind": column.kind, "title": column.title or TITLES[column.kind]} for column in columns],
        "nodes": [(cell.piece.index, row[layer], at[kind, unit], cell.name) for (layer, kind, unit), cell in shown],
    }


def reach(members: Iterable[Component]) -> str | None:
    """The layer or layers of a set, in words."""
    layers = sorted({component.layer for component in members if component.layer is not None})
    if not layers:
        return None
    return f"within layer {layers[0]}" if len(layers) == 1 else f"across layers {', '.join(str(layer) for layer in layers)}"


def _name(component: Component) -> str:
    """The text on a node, without the layer, which its height shows, and without the letter of a head."""
    name = component.label.removeprefix(f"L{component.layer}").strip()
    if component.kind == "head":
        return name.removeprefix("H")
    return f"N{component.unit}" if component.kind == "neurons" else name or component.label


def _cell(component: Component, effects: Effects, marked: Collection[int]) -> Cell:
    return Cell(effects.piece(component, component.label), _name(component), component.index in marked)


def _columns_of(units: Collection[int], kind: str, heads: int) -> dict[int, int]:
    """For each unit of a kind the one that its column is named after; heads have columns whether they are in the game or not."""
    if kind == "head":
        return {unit: unit for unit in range(max(heads, *(unit + 1 for unit in units)))}
    ordered, each = sorted(units), -(-len(units) // COLUMNS)
    return {unit: ordered[i - i % each] for i, unit in enumerate(ordered)}


def _panel(found: Mapping[Place, Cell], columns: Sequence[tuple[str, int]]) -> Panel:
    kinds = {kind for kind, _ in columns}
    layers = [layer for layer, kind, _ in found if kind in kinds]
    rows = range(max(layers), min(layers) - 1, -1)
    wide, narrow = (-(-len(columns) // most) for most in (FITTING_DENSE if len(columns) > DENSE else FITTING["neurons" if kinds == {"neurons"} else "head"]))
    headed: list[Column] = []
    for i, (kind, unit) in enumerate(columns):
        within = i - next(j for j, (other, _) in enumerate(columns) if other == kind)
        headed.append(Column(kind, unit, within == 0 and i > 0, within % wide == 0 and i < len(columns) - wide // 2, within % narrow == 0))
    return Panel(tuple(headed), tuple((layer, tuple(found.get((layer, kind, unit)) for kind, unit in columns)) for layer in rows))


def _small(panel: Panel) -> dict[str, Any]:
    shift = list(accumulate(0.5 if column.first else 0.0 for column in panel.columns))
    cells = [(i + shift[i], y, cell.piece.index) for y, (_, cells) in enumerate(panel.rows) for i, cell in enumerate(cells) if cell is not None]
    return {"width": len(panel.columns) + shift[-1], "height": len(panel.rows), "cells": cells}
