"""Conversion of a surrogate's interactions to shapiq's `InteractionValues`, for use with its plots and tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from raysp.errors import UserError
from raysp.masks import Masks, Values
from raysp.spectral.indices import check_index
from raysp.spectral.sets import Floats, Sets

if TYPE_CHECKING:
    from shapiq import InteractionValues


#: shapiq's names of the indices that it supports.
NAMES = {"mobius": "Moebius", "bii": "BII", "sii": "SII", "stii": "STII", "fbii": "FBII", "fsii": "FSII", "sv": "SV", "bv": "BV"}


class Indexed(Protocol):
    """A surrogate that provides its interactions in every index, such as `FourierSurrogate`."""

    n: int
    sets: Sets
    error: Floats | None

    def index(self, index: str, max_order: int | None = None, min_order: int = 0) -> tuple[Sets, Floats, Floats]:
        """Sets with their values and standard errors in the given index."""
        ...

    def predict(self, masks: Masks) -> Values:
        """The values of masks."""
        ...


def to_shapiq(surrogate: Indexed, index: str = "fsii", max_order: int | None = None, min_order: int = 0) -> InteractionValues:
    """Convert the interactions of orders `min_order` to `max_order` (None: the largest order of the terms) to shapiq's `InteractionValues`.

    Sets with value zero are omitted. As in shapiq, the baseline is the value of the empty mask, except for `fbii`, where it is the index of the empty set,
    and an index of order 1 carries the name of the value that it generalises. Raises UserError for an index that shapiq does not support, or if shapiq is
    not installed.
    """
    try:
        from shapiq import InteractionValues
    except ImportError:
        raise UserError("to_shapiq", None, "needs shapiq, which is not installed", "run pip install 'raysp[shapiq]'") from None
    if check_index(index) not in NAMES:
        raise UserError("index", index, "is not supported by shapiq", f"use one of {', '.join(NAMES)}")
    top = 1 if index in {"sv", "bv"} else max(surrogate.sets.max_order if max_order is None else max_order, 1)
    sets, values, _ = surrogate.index("bii" if index == "bv" else index, top)  # bv has no empty set, which shapiq requires
    found: dict[tuple[int, ...], float] = {(): 0.0} | dict(zip(sets.tuples(), values.tolist(), strict=True))  # otherwise shapiq would insert the baseline
    nothing = float(surrogate.predict(np.zeros((1, surrogate.n), dtype=np.bool_))[0])
    return InteractionValues(
        {members: value for members, value in found.items() if len(members) >= min_order},
        index=NAMES[index],
        max_order=top,
        n_players=surrogate.n,
        min_order=min_order,
        baseline_value=found[()] if index == "fbii" else nothing,
        estimated=surrogate.error is not None,
    )
