"""A game: components, and how a mask over them becomes a value.

A game knows nothing of Ray, of explorers or of the store. Masks are bool arrays, ``True`` = kept.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raysp.masks import Masks, Values, check_finite, check_masks

if TYPE_CHECKING:
    from raysp.spectral.fourier import FourierSurrogate


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that can be ablated.

    `start` and `stop` are character offsets into the source text where there is one; `size` is its cost in tokens. `layer` and `unit` say where in
    a model it is: the number of the head, or the first neuron.
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
    """One of the questions that a game with several answers each mask with: a short label, the text asked, the answer it is about and what that is compared with."""

    index: int
    label: str
    prompt: str
    target: str
    foil: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: its number in the training set, the component that it belongs to, and its text."""

    index: int
    component: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """The values of a batch of masks and what they cost: float64 `(m,)`, model tokens computed, seconds of model time.

    `outputs`, of a game that asks several queries, are the answers to each, float64 `(m, queries)`; a value is then their mean.
    """

    values: Values
    tokens: int
    seconds: float
    outputs: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class GameInfo:
    """All that the rest of the system needs to know of a game: small, picklable, free of models.

    `description` is what the fingerprint was made of, in readable form; `notes` are remarks for people that change no value, and `warnings` such as
    a person should hear before anything is paid for.
    `batch_masks` is how many masks make one request of a second or two. `queries` are what a mask answers besides its value, `examples` what the
    components of a training set are made of.
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


class Attributions(dict[str, Values]):
    """Attributions by method, float64 `(n,)` each.

    `unsigned` are the methods that say how much a component matters and not which way; `notes` say which methods are left out, and why.
    """

    unsigned: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


class Game(ABC):
    """Components and a value for every mask over them. Subclasses set `info` and implement `measure`."""

    info: GameInfo

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
        """The values of checked masks (bool, `(m, n)`) with their cost."""

    def remeasure(self, masks: Masks) -> Measurement:
        """As `measure`, computed again: a game that remembers values takes none of them, so that two measurements differ by its numeric noise."""
        return self.measure(masks)

    def evaluate(self, masks: object) -> Values:
        """Values (float64, `(m,)`) of masks (bool, `(m, n)`), computed in this process.

        Raises ValueError for masks of another shape or type, EvaluationError for a value that is no finite number.
        """
        checked = check_masks(masks, self.n)
        return check_finite(checked, self.measure(checked).values)

    def attributions(self) -> dict[str, Values]:
        """Cross-checks by method, float64 `(n,)` each: approximations of v(all) - v(all without i), or scores that should rank like it.

        None by default. A game that leaves methods out, or has some without a sign, gives `Attributions`.
        """
        return {}

    def estimate(self, max_order: int) -> "FourierSurrogate | None":  # noqa: ARG002  for those who have one
        """What the model's own gradients say of every mask, as terms of up to `max_order` (1 or 2); None, the default, where they say nothing."""
        return None

    def hints(self) -> NDArray[np.float64] | None:
        """Effects v(all) - v(all without i) on each query as several methods guess them without an evaluation, float64 `(methods, queries, n)`.

        None, the default, where there is no such guess, or where it is not so much cheaper than evaluations that every run should have it.
        """
        return None


@dataclass
class FunctionGame(Game):
    """Any callable from masks (bool, `(m, n)`) to values (`(m,)`) as a game."""

    function: Any
    info: GameInfo = field(repr=False)

    def measure(self, masks: Masks) -> Measurement:
        """Call the function on the masks; it must give one number a mask."""
        began = time.perf_counter()
        values = np.asarray(self.function(masks), dtype=np.float64)
        if values.shape != (len(masks),):
            raise ValueError(f"the function gave values of shape {values.shape} for masks of shape {masks.shape}; expected ({len(masks)},)")
        return Measurement(values, 0, time.perf_counter() - began)


def fingerprint(description: Mapping[str, Any]) -> str:
    """A name for a game: 32 hex digits of SHA-256 over the canonical JSON of all that its values depend on."""
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


def _circled(number: int) -> str:
    """A number in a circle where Unicode has one, in brackets otherwise."""
    for first, last, point in ((1, 20, 0x2460), (21, 35, 0x3251), (36, 50, 0x32B1)):
        if first <= number <= last:
            return chr(point + number - first)
    return f"({number})"
