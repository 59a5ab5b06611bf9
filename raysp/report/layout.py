"""How components are laid out on the page: running text for words, a list for sentences, shaded by single effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from raysp.game import Component
from raysp.report.numbers import number
from raysp.report.readings import ON_AVERAGE
from raysp.runs.singles import Single, averaged

LONG = 28
"""Median label length from which components are listed one a line."""
LINE = 44
"""Characters that fit on a line in large type."""
SHOWN = 8
"""Interactions drawn at first."""
SHADES = 20
"""Steps of shading: a page may have no inline styles, so `page.css` has a rule for each."""


def shade(strength: float) -> int:
    """A strength from 0 to 1 as a step of shading; only no strength at all has none."""
    return max(round(SHADES * strength), 1) if strength > 0 else 0


@dataclass(frozen=True)
class Piece:
    """A stretch of text: a component with its effect, or the text between two components (`index` None). `told` is the effect in every reading, as text."""

    text: str
    index: int | None = None
    effect: float | None = None
    strength: float = 0.0
    shown: str = "–"
    told: str = "no single effect"

    @property
    def tone(self) -> str:
        """The direction in which the component moves the value."""
        return "none" if not self.effect else "pos" if self.effect > 0 else "neg"

    @property
    def shade(self) -> int:
        """The strength in steps of the classes of shading."""
        return shade(self.strength)

    @property
    def tip(self) -> str:
        """The tooltip."""
        return f"{self.text.strip()}: {self.told}"


@dataclass(frozen=True)
class Layout:
    """Pieces in reading order, whether each component has a line of its own, and the largest |effect|."""

    pieces: tuple[Piece, ...]
    listed: bool
    largest: float

    @property
    def form(self) -> str:
        """The CSS class of the layout: listed, large if the text fits on about a line, flow otherwise."""
        return "listed" if self.listed else "flow large" if sum(len(piece.text) for piece in self.pieces) <= LINE else "flow"


@dataclass(frozen=True)
class Effects:
    """The single effects of a run by component, in the reading by which they are ranked, and the largest |effect|.

    `averaged` is whether that reading is the mean over contexts; `beside` are the effects at the intact input where both are known, called `place`.
    """

    values: Mapping[int, float]
    largest: float
    averaged: bool = False
    beside: Mapping[int, float] = field(default_factory=dict[int, float])
    place: str = ""

    @classmethod
    def of(cls, singles: Sequence[Single], place: str) -> Self:
        """From single effects; `place` is what the reading at the intact input is called."""
        values = {single.component: single.effect for single in singles}
        beside = {single.component: single.beside for single in singles if single.beside is not None}
        return cls(values, max((abs(value) for value in values.values()), default=0.0), averaged(singles), beside, place)

    def piece(self, component: Component, text: str) -> Piece:
        """A component with its effect, shown as this text."""
        effect, shown = self.values.get(component.index), self._shown(self.values.get(component.index))
        if effect is None:
            return Piece(text, component.index)
        beside = self.beside.get(component.index)
        told = shown if beside is None else f"{shown} {ON_AVERAGE}, {self._shown(beside)} {self.place}"
        return Piece(text, component.index, effect, abs(effect) / self.largest if self.largest else 0.0, shown, told)

    def _shown(self, effect: float | None) -> str:
        return number(effect, like=self.largest)


def lay_out(components: Sequence[Component], effects: Effects, source: str | None) -> Layout:
    """Components with their single effects, inside their source text if they have offsets into it."""
    largest, piece = effects.largest, effects.piece
    listed = bool(components) and median(len(component.label) for component in components) >= LONG
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


def _in_order(components: Sequence[Component], length: int) -> bool:
    at = 0
    for component in components:
        if component.start is None or component.stop is None or not at <= component.start <= component.stop <= length:
            return False
        at = component.stop
    return True
