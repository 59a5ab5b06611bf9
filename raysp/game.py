"""A game: components, and how a mask over them becomes a value.

A game knows nothing of Ray, of explorers or of the store. Masks are bool arrays, ``True`` = kept.
"""

import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.gradients import GradientReport
from raysp.masks import Masks, Values, check_finite, check_masks


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that can be ablated.

    `start` and `stop` are character offsets into the source text, if there is one; `size` is the number of tokens. `layer` and `unit` locate a part of a
    model: `unit` is the number of the head, or of the first neuron.
    """

    index: int
    label: str
    kind: str
    start: int | None = None
    stop: int | None = None
    size: int = 1
    layer: int | None = None
    unit: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """One of the questions that each mask of a game answers: a short label, the prompt, the answer whose value is measured, and the foil it is compared with."""

    index: int
    label: str
    prompt: str
    target: str
    foil: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: its number in the training set, the component it belongs to, and its text."""

    index: int
    component: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """The values of a batch of masks, float64 `(m,)`, and what they cost: model tokens computed and seconds of model time.

    `outputs`, float64 `(m, queries)`, are the values of the single queries of a game that has some; the value is then their mean.
    """

    values: Values
    tokens: int
    seconds: float
    outputs: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class GameInfo:
    """All that the rest of the system needs to know about a game: small, picklable, without models.

    `description` holds what the fingerprint was computed from, in readable form. `notes` are remarks for people, `warnings` those to show before any
    evaluation is bought. `batch_masks` is the number of masks that take a second or two together. `queries` are answered by every mask; `examples` make
    up the components of a training set.
    """

    fingerprint: str
    components: tuple[Component, ...]
    description: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    batch_masks: int = 256
    source: str | None = None
    warnings: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def n(self) -> int:
        """The number of components."""
        return len(self.components)


class Game(ABC):
    """Components and a value for every mask over them. Subclasses set `info` and implement `measure`, and `compute_gradients` if they have any."""

    info: GameInfo
    _report: GradientReport | None = None

    @property
    def n(self) -> int:
        """The number of components."""
        return self.info.n

    @property
    def components(self) -> tuple[Component, ...]:
        """The components, in the order of the masks' columns."""
        return self.info.components

    @abstractmethod
    def measure(self, masks: Masks) -> Measurement:
        """The values of checked masks (bool, `(m, n)`), and their cost."""

    def remeasure(self, masks: Masks) -> Measurement:
        """As `measure`, computed again: a game that remembers values takes none of them, so that two measurements differ by its numeric noise."""
        return self.measure(masks)

    def evaluate(self, masks: object) -> Values:
        """Values (float64, `(m,)`) of masks (bool, `(m, n)`), computed in this process.

        Raises ValueError for masks of another shape or type, EvaluationError for a value that is not finite.
        """
        checked = check_masks(masks, self.n)
        return check_finite(checked, self.measure(checked).values)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the components, with terms of at least `max_order` (1 or 2) if there are any. Computed once, and again only for a higher order.

        EvaluationError if memory does not suffice.
        """
        if self._report is None or self._report.max_order < max_order:
            began = time.perf_counter()
            found = self.compute_gradients(max_order)
            self._report = replace(found, seconds=time.perf_counter() - began)
        return self._report

    def compute_gradients(self, max_order: int) -> GradientReport:  # noqa: ARG002  for games that have gradients
        """The report, computed from scratch; empty unless a subclass has gradients."""
        return GradientReport()


@dataclass
class FunctionGame(Game):
    """Any callable from masks (bool, `(m, n)`) to values (`(m,)`) as a game."""

    function: Any
    info: GameInfo = field(repr=False)

    def measure(self, masks: Masks) -> Measurement:
        """Call the function on the masks; it must return one number a mask."""
        began = time.perf_counter()
        values = np.asarray(self.function(masks), dtype=np.float64)
        if values.shape != (len(masks),):
            raise ValueError(f"the function returned values of shape {values.shape} for masks of shape {masks.shape}; expected ({len(masks)},)")
        return Measurement(values, 0, time.perf_counter() - began)


def fingerprint(description: Mapping[str, Any]) -> str:
    """The identity of a game: 32 hex digits of the SHA-256 of the canonical JSON of everything that its values depend on."""
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def labels(components: Sequence[Component], members: Sequence[int]) -> str:
    """A set of components in words, such as ``never × fails``."""
    return " × ".join(components[i].label for i in members) or "∅"


def distinct_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, with equal ones numbered in their order: `the dog jumps. ①`, `the dog jumps. ②`."""
    counts, seen = Counter(labels), Counter[str]()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        found.append(label if counts[label] == 1 else f"{label} {_circled(seen[label])}")
    # A label may already have looked like another one with its number.
    return tuple(found) if len(set(found)) == len(found) else distinct_labels(found)


def base_label(label: str) -> str:
    """The label without the numbers that `distinct_labels` may have appended: `the dog jumps.` for `the dog jumps. ②`."""
    return _NUMBERS.sub("", label)


_NUMBERS = re.compile("( ([\u2460-\u2473\u3251-\u325f\u32b1-\u32bf]|\\(\\d+\\)))+$")


def _circled(number: int) -> str:
    """A number in a circle where Unicode has one, in brackets otherwise."""
    for first, last, point in ((1, 20, 0x2460), (21, 35, 0x3251), (36, 50, 0x32B1)):
        if first <= number <= last:
            return chr(point + number - first)
    return f"({number})"
