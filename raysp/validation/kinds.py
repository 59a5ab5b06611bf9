"""Synergy and redundancy: one rule for every order, applied around the intact input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from raysp.sampling.ablations import ablations
from raysp.spectral.fourier import ROUNDING, FourierSurrogate
from raysp.spectral.sets import Floats

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["synergy", "redundancy", "additive"]

#: A one-sentence definition of each kind.
KINDS: dict[Kind, str] = {
    "synergy": "They work only together: removing all of them does less than the single effects add up to, as removing one already breaks the rest.",
    "redundancy": "Each covers for the others: removing all of them does more than the single effects add up to.",
    "additive": "They act apart: removing all of them does what the single effects add up to.",
}


def kind_of(joint: float, parts: float) -> Kind:
    """The kind of a set T from its joint effect Δ(T) = v(all) - v(all without T) and the sum of its single effects Δ(i).

    With the excess E = joint - parts: redundancy if E has the sign of the joint effect, synergy if it has the opposite sign or the joint effect is zero.
    """
    excess = joint - parts
    if abs(excess) <= ROUNDING * max(abs(joint), abs(parts)):
        return "additive"
    return "redundancy" if excess * joint > 0 else "synergy"


def effects(sets: Sequence[Sequence[int]], surrogate: FourierSurrogate) -> tuple[Floats, Floats]:
    """Joint effects and sums of single effects of these sets according to a surrogate, float64 `(len(sets),)` each."""
    n = surrogate.n
    predicted = surrogate.predict(ablations(n, [(), *((i,) for i in range(n)), *sets]))
    single = predicted[0] - predicted[1 : n + 1]
    return predicted[0] - predicted[n + 1 :], np.array([single[list(members)].sum() for members in sets], dtype=np.float64)


def surrogate_kinds(surrogate: FourierSurrogate, sets: Iterable[Sequence[int]]) -> pa.Table:
    """Joint effect, sum of single effects, deviation from additivity and kind according to a surrogate, for sets that were not measured.

    Columns components list<int32>, joint_effect, sum_of_effects, deviation double, kind string, in the order given.
    """
    import pyarrow as pa

    members = [sorted(int(i) for i in each) for each in sets]
    joint, parts = effects(members, surrogate)
    deviations = surrogate.interactions("additivity", max((len(each) for each in members), default=1), 1)
    known = dict(zip(map(tuple, deviations["components"].to_pylist()), deviations["value"].to_pylist(), strict=True))
    return pa.table(
        {
            "components": pa.array(members, pa.list_(pa.int32())),
            "joint_effect": pa.array(joint, pa.float64()),
            "sum_of_effects": pa.array(parts, pa.float64()),
            "deviation": pa.array([known.get(tuple(each), 0.0) for each in members], pa.float64()),
            "kind": pa.array([kind_of(j, p) for j, p in zip(joint.tolist(), parts.tolist(), strict=True)], pa.string()),
        }
    )
