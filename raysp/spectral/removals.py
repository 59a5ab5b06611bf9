"""Removals whose effect is measured: a surrogate proposes sets of components, measured values choose among them.

A surrogate of a budget of masks knows single components and pairs well, and errs where many are gone at once. Sets of one size therefore also start from the best
ones measured of the sizes below and above, of which the surrogate has to know only what comes next. Without a surrogate, slopes propose what to remove next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from raysp.errors import UserError
from raysp.masks import Masks, Values
from raysp.spectral.flips import Flips
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.selection import CURVE, Mode, best_subset
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

#: The columns of a table of removals.
COLUMNS = ("r", "components", "value", "change", "predicted", "evaluations")

Measure = Callable[[Masks], Values]
"""The value of masks (bool, `(m, n)`): float64 `(m,)`."""


def measured_removals(
    surrogate: FourierSurrogate, measure: Measure, rs: Sequence[int] | None = None, mode: Mode = "change", *, tries: int = 8, **options: Any
) -> pa.Table:
    """The removal of each size `rs` (None: 3 to 7, up to the number of components) whose measured value is best among those tried, at most `tries` a size.

    Tried are the best set under the surrogate; the best measured set of the size below with what the surrogate would remove next; and that of the size above
    without what it would restore first. `mode` is increase or decrease; change stands for that of the two in which the surrogate's best set of the largest size
    goes. `options` are passed to `best_subset`, and concern its sets alone.

    Columns: r int32, components list<int32>, value double (measured), change double (from the measured v(all), in the direction of the mode), predicted double
    (the surrogate's value), evaluations int32 (masks measured for this size). Raises UserError as `best_subset`, and for `tries` below 2.
    """
    import pyarrow as pa

    if tries < 2:
        raise UserError("tries", tries, "leaves nothing to compare", "give at least 2")
    sizes = sorted(r for r in CURVE if r <= surrogate.n) if rs is None else sorted(set(rs))
    optima = [best_subset(surrogate, r, mode, **options) for r in sizes]
    intact = np.ones(surrogate.n, dtype=np.bool_)
    rises = mode == "increase" or (mode == "change" and bool(optima) and optima[-1].value > float(surrogate.predict(intact[None])[0]))
    trials = _Trials(surrogate, measure, 1.0 if rises else -1.0)
    found: list[Masks] = []
    for best in optima:
        before = found[-1] if found else intact
        found.append(trials.best([_without(intact, best.components), *trials.grown(before, len(best.components), tries - tries // 2 - 1)]))
    for place in range(len(sizes) - 2, -1, -1):
        found[place] = trials.best([found[place], *trials.restored(found[place + 1], sizes[place], tries // 2)])
    masks = np.array(found, dtype=np.bool_).reshape(-1, surrogate.n)
    values, start = np.array([trials.known[mask.tobytes()] for mask in masks]), trials.value(intact)
    return pa.table(
        {
            "r": pa.array(sizes, pa.int32()),
            "components": pa.array([np.flatnonzero(~mask).tolist() for mask in masks], pa.list_(pa.int32())),
            "value": pa.array(values, pa.float64()),
            "change": pa.array(trials.sign * (values - start), pa.float64()),
            "predicted": pa.array(surrogate.predict(masks), pa.float64()),
            "evaluations": pa.array([sum(mask.count(0) == r for mask in trials.known) for r in sizes], pa.int32()),
        }
    )


class Sloping(Protocol):
    """A game with slopes, such as one of `raysp.build_game`."""

    @property
    def n(self) -> int:
        """The number of components."""
        ...

    def evaluate(self, masks: Masks, /) -> Values:
        """The values of masks (bool, `(m, n)`), float64 `(m,)`."""
        ...

    def gate_slopes(self, masks: Masks, /) -> Floats:
        """What removing each component would lose under each mask, to first order, float64 `(m, n)`."""
        ...


def greedy_removals(game: Sloping, most: int = 5, mode: Literal["decrease", "increase"] = "decrease", *, tries: int = 3) -> pa.Table:
    """Remove components one after the other, each time that of `tries` measured ones whose removal moves the value furthest, until `most` are removed.

    The measured ones are the most promising by the slopes at what is left, so that a component shows that another one has covered for. A step costs one backward
    pass and at most `tries` evaluations.

    Columns: r int32, components list<int32> (in the order of their removal), value double (measured), change double (from the measured v(all), in the direction of
    the mode), predicted double (by the value and the slope before the last removal), evaluations int32. Raises UserError for `most` or `tries` below 1 and other modes, and
    ValueError if the game has no slopes.
    """
    import pyarrow as pa

    for name, given in (("most", most), ("tries", tries)):
        if given < 1:
            raise UserError(name, given, "is too small", "give at least 1")
    if mode not in ("decrease", "increase"):
        raise UserError("mode", mode, "is not known", "choose decrease or increase")
    mask, sign = np.ones(game.n, dtype=np.bool_), 1.0 if mode == "increase" else -1.0
    start = value = float(game.evaluate(mask[None])[0])
    removed: list[int] = []
    rows: list[dict[str, Any]] = []
    for r in range(1, min(most, game.n) + 1):
        slopes = game.gate_slopes(mask[None])[0]
        kept = np.flatnonzero(mask)
        tried = kept[np.argsort(sign * slopes[kept], kind="stable")[:tries]]
        values = game.evaluate(np.stack([_without(mask, [i]) for i in tried]))
        best = int(np.argmax(sign * values))
        removed.append(int(tried[best]))
        predicted, value = value - float(slopes[removed[-1]]), float(values[best])
        mask = _without(mask, removed[-1:])
        found = {"r": r, "components": list(removed), "value": value, "change": sign * (value - start)}
        rows.append({**found, "predicted": predicted, "evaluations": len(tried)})
    kinds = (pa.int32(), pa.list_(pa.int32()), pa.float64(), pa.float64(), pa.float64(), pa.int32())
    return pa.Table.from_pylist(rows, pa.schema(zip(COLUMNS, kinds, strict=True)))


@dataclass
class _Trials:
    """Masks that were measured, with their values by the bytes of the mask; a higher `sign` times value is better."""

    surrogate: FourierSurrogate
    measure: Measure
    sign: float
    known: dict[bytes, float] = field(default_factory=dict[bytes, float])

    def __post_init__(self) -> None:
        self._flips = Flips.of(self.surrogate, keep=False, sign=self.sign)

    def value(self, mask: Masks) -> float:
        """The measured value of a mask (bool `(n,)`)."""
        self.best([mask])
        return self.known[mask.tobytes()]

    def best(self, masks: Sequence[Masks]) -> Masks:
        """The first of the best of these masks (bool `(n,)` each); those not known are measured together."""
        fresh = list({mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.known}.values())
        if fresh:
            values = self.measure(np.stack(fresh))
            self.known |= {mask.tobytes(): float(value) for mask, value in zip(fresh, values, strict=True)}
        return max(masks, key=lambda mask: self.sign * self.known[mask.tobytes()])

    def grown(self, mask: Masks, r: int, count: int) -> list[Masks]:
        """Up to `count` masks without r components, those that `mask` removes among them: the most promising ones, which differ in one component."""
        while r - int((~mask).sum()) > 1:
            mask = _without(mask, self._promising(mask, mask)[:1])
        return [_without(mask, [i]) for i in self._promising(mask, mask)[:count]] if mask.sum() > mask.size - r else []

    def restored(self, mask: Masks, r: int, count: int) -> list[Masks]:
        """Up to `count` masks without r of the components that `mask` removes: the most promising ones, which differ in one component."""
        while int((~mask).sum()) - r > 1:
            mask = ~_without(~mask, self._promising(mask, ~mask)[:1])
        return [~_without(~mask, [i]) for i in self._promising(mask, ~mask)[:count]] if (~mask).sum() > r else []

    def _promising(self, mask: Masks, among: Masks) -> Sequence[int]:
        """The components of `among` (bool `(n,)`) by what the surrogate gains if they are removed from the mask or, if it lacks them, restored: the best first."""
        gains = self._flips.incidence.T @ self._flips.turned(~mask)
        members = np.flatnonzero(among)
        return members[np.argsort(-gains[members], kind="stable")].tolist()


def _without(mask: Masks, components: Sequence[int]) -> Masks:
    """The mask without these components."""
    found = mask.copy()
    found[list(components)] = False
    return found
