"""How a surrogate's energy is distributed over a model's layers: in single components, within a layer, across layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from raysp.game import Component
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.sets import Floats

#: Layers per group, as in the published head experiments.
GROUPED = 3


def energy_by_layer(surrogate: FourierSurrogate, components: Sequence[Component]) -> dict[str, Any] | None:
    """Return the shares of the variance that are linear, within a layer and across layers: of all sets, and of the sets that reach into each group of three layers.

    The variance is the sum of F(S)² without the empty set. Returns None for components that belong to no layer, and for a surrogate without variance.
    """
    places = [component.layer for component in components]
    if any(place is None for place in places):
        return None
    layer = np.array(places, dtype=np.int64)
    kinds, squares, touched = _terms(surrogate, layer)
    if not squares.sum() > 0:
        return None
    there = sorted(set(layer.tolist()))
    groups = [there[start : start + GROUPED] for start in range(0, len(there), GROUPED)]
    found: list[dict[str, Any]] = []
    for group in groups:
        inside = touched[:, group].any(axis=1)
        if squares[inside].sum() > 0:
            found.append({"layers": group, **_shares(kinds[inside], squares[inside])})
    return {**_shares(kinds, squares), "groups": found}


def _terms(surrogate: FourierSurrogate, layer: np.ndarray) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Kind (0 linear, 1 within a layer, 2 across layers), energy and touched layers (bool `(sets, layers)`) of every set except the empty one."""
    kinds: list[int] = []
    squares: list[float] = []
    touched: list[np.ndarray] = []
    for members, coefficient in zip(surrogate.sets.tuples(), surrogate.coefficients.tolist(), strict=True):
        if members:
            mine = layer[list(members)]
            kinds.append(0 if len(members) == 1 else 1 if len(set(mine.tolist())) == 1 else 2)
            squares.append(coefficient**2)
            row = np.zeros(int(layer.max()) + 1, dtype=np.bool_)
            row[mine] = True
            touched.append(row)
    return np.array(kinds, dtype=np.int64), np.array(squares), np.array(touched, dtype=np.bool_).reshape(len(kinds), int(layer.max()) + 1)


def _shares(kinds: np.ndarray, squares: Floats) -> dict[str, float]:
    whole = float(squares.sum())
    return {name: float(squares[kinds == kind].sum()) / whole for kind, name in enumerate(("linear", "within", "across"))}
