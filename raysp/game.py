"""A game: a set of components and a value function on masks over them.

Games are independent of Ray, explorers and the store. Masks are bool arrays, ``True`` = kept.
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
    """A unit that can be ablated.

    `start` and `stop` are character offsets into the source text, if there is one; `size` is the number of tokens. `layer` and `unit` locate a part of a
    model: `unit` is the index of the head, or of the first neuron.
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
    """One of several outputs measured for each mask: a short label, the prompt, the target answer, and the foil with which the target is compared."""

    index: int
    label: str
    prompt: str
    target: str
    foil: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: its index in the training set, the component to which it belongs, and its text."""

    index: int
    component: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """The values of a batch of masks, float64 `(m,)`, and their cost: model tokens processed and seconds of model time.

    `outputs`, float64 `(m, queries)`, are the values of the individual queries, if the game has queries; the value is then their mean. `notes` are remarks for
    the user on how these masks were measured, if that was not as the game's own notes say. `slopes`, float32 `(m, queries, n)` (one query for a game without
    queries), are the derivatives of the outputs in each component's gate at these masks, if they were requested.
    """

    values: Values
    tokens: int
    seconds: float
    outputs: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    slopes: NDArray[np.float32] | None = None

    def rows(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Measurement":
        """Some rows, at the cost of all."""
        outputs = None if self.outputs is None else self.outputs[rows]
        slopes = None if self.slopes is None else self.slopes[rows]
        return replace(self, values=self.values[rows], outputs=outputs, slopes=slopes)

    @classmethod
    def of(cls, parts: Sequence["Measurement"]) -> "Measurement":
        """The measurement of several batches of one game, at least one, one after the other."""
        if len(parts) == 1:
            return parts[0]
        outputs = [part.outputs for part in parts if part.outputs is not None]
        slopes = [part.slopes for part in parts if part.slopes is not None]
        notes = dict.fromkeys(note for part in parts for note in part.notes)
        return cls(
            np.concatenate([part.values for part in parts]),
            sum(part.tokens for part in parts),
            sum(part.seconds for part in parts),
            np.concatenate(outputs) if outputs else None,
            tuple(notes),
            np.concatenate(slopes) if slopes else None,
        )


@dataclass(frozen=True, slots=True)
class GameInfo:
    """Metadata of a game, used by the rest of the system: small, picklable, and without models.

    `description` contains the inputs of the fingerprint in readable form. `notes` are remarks for the user, and `warnings` are shown before any
    evaluation. `batch_masks` is the number of masks that together take a second or two. `queries` are measured for every mask; `examples` make up the
    components of a training set. `slopes` states whether the game can measure slopes.
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
    slopes: bool = False

    @property
    def n(self) -> int:
        """The number of components."""
        return len(self.components)


class Game(ABC):
    """Base class of games. Subclasses set `info`, implement `measure`, and override `compute_gradients` if they can provide gradients.

    A game that can measure slopes says so in `info.slopes`; all others call `check_slopes` first.
    """

    info: GameInfo
    _report: GradientReport | None = None

    @property
    def n(self) -> int:
        """The number of components."""
        return self.info.n

    @property
    def components(self) -> tuple[Component, ...]:
        """The components, in the order of the columns of masks."""
        return self.info.components

    @abstractmethod
    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """Measure the values and the cost of checked masks (bool, `(m, n)`), and their slopes if requested. ValueError if the game has no slopes."""

    def check_slopes(self, *, slopes: bool) -> None:
        """ValueError if slopes are requested and the game cannot measure them."""
        if slopes and not self.info.slopes:
            raise ValueError("slopes: this game has none; measure its values alone")

    def remeasure(self, masks: Masks) -> Measurement:
        """Measure the masks without using cached values, so that two measurements differ by the numerical noise of the game."""
        return self.measure(masks)

    def gate_slopes(self, masks: Masks) -> NDArray[np.float64]:
        """The derivatives of the values of masks (bool, `(m, n)`) in the gates of all components, float64 `(m, n)`: to first order, what removing each would lose.

        They are for proposals, and may be of another ablation than the values. ValueError if the game has none.
        """
        found = self.measure(check_masks(masks, self.n), slopes=True).slopes
        assert found is not None
        return found.mean(axis=1, dtype=np.float64)

    def evaluate(self, masks: object) -> Values:
        """Compute the values (float64, `(m,)`) of masks (bool, `(m, n)`) in this process.

        Raises ValueError for masks of the wrong shape or type, and EvaluationError if a value is not finite.
        """
        checked = check_masks(masks, self.n)
        return check_finite(checked, self.measure(checked).values)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """Return the gradient report, with terms up to order `max_order` (1 or 2) where available; 0 asks for its priors alone, where these cost less.

        The report is cached and recomputed only for a higher order. Raises EvaluationError if memory is insufficient.
        """
        if self._report is None or self._report.max_order < max_order:
            began = time.perf_counter()
            found = self.compute_gradients(max_order)
            self._report = replace(found, seconds=time.perf_counter() - began)
        return self._report

    def compute_gradients(self, max_order: int) -> GradientReport:  # noqa: ARG002  for games that have gradients
        """Compute the gradient report; empty unless a subclass provides gradients."""
        return GradientReport()


@dataclass
class FunctionGame(Game):
    """A game defined by a callable that maps masks (bool, `(m, n)`) to values (`(m,)`)."""

    function: Any
    info: GameInfo = field(repr=False)

    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """Call the function on the masks; it must return one number per mask. ValueError if slopes are requested."""
        self.check_slopes(slopes=slopes)
        began = time.perf_counter()
        values = np.asarray(self.function(masks), dtype=np.float64)
        if values.shape != (len(masks),):
            raise ValueError(f"the function returned values of shape {values.shape} for masks of shape {masks.shape}; expected ({len(masks)},)")
        return Measurement(values, 0, time.perf_counter() - began)


def fingerprint(description: Mapping[str, Any]) -> str:
    """The fingerprint of a game: the first 32 hex digits of the SHA-256 of the canonical JSON of everything on which its values depend."""
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def labels(components: Sequence[Component], members: Sequence[int]) -> str:
    """Format a set of components by their labels, such as ``never × fails``."""
    return " × ".join(components[i].label for i in members) or "∅"


def distinct_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Make labels unique by numbering equal ones in order: `the dog jumps. ①`, `the dog jumps. ②`."""
    counts, seen = Counter(labels), Counter[str]()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        found.append(label if counts[label] == 1 else f"{label} {_circled(seen[label])}")
    # A numbered label may equal a label that was already present.
    return tuple(found) if len(set(found)) == len(found) else distinct_labels(found)


def base_label(label: str) -> str:
    """The label without the numbers that `distinct_labels` may have appended: `the dog jumps.` for `the dog jumps. ②`."""
    return _NUMBERS.sub("", label)


_NUMBERS = re.compile("( ([\u2460-\u2473\u3251-\u325f\u32b1-\u32bf]|\\(\\d+\\)))+$")


def _circled(number: int) -> str:
    """A circled number if Unicode has one, a number in parentheses otherwise."""
    for first, last, point in ((1, 20, 0x2460), (21, 35, 0x3251), (36, 50, 0x32B1)):
        if first <= number <= last:
            return chr(point + number - first)
    return f"({number})"
