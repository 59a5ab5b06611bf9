"""The split of a surrogate's variance into single components, interactions within a layer and interactions across layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHARES = {"linear": "single components", "within": "interactions within a layer", "across": "interactions across layers"}
"""The parts of the variance, in the order of the bars."""


@dataclass(frozen=True)
class Bar:
    """The shares of one bar in the order of `SHARES`, which add up to 1."""

    label: str
    shares: tuple[float, float, float]

    @property
    def tip(self) -> str:
        """The tooltip."""
        return f"{self.label}: " + ", ".join(f"{share:.0%} {name}" for share, name in zip(self.shares, SHARES.values(), strict=True))


def bars(by_layer: Mapping[str, Any] | None) -> list[Bar]:
    """A bar for all layers and, if there are several groups of layers, one for each, the deepest first as in the heat map."""
    if not by_layer or not _total(by_layer):
        return []
    groups: Sequence[Mapping[str, Any]] = by_layer.get("groups") or ()
    shown = sorted((group for group in groups if _total(group)), key=lambda group: -max(group["layers"])) if len(groups) > 1 else []
    return [_bar("all layers", by_layer), *(_bar(_named(group["layers"]), group) for group in shown)]


def sentence(bar: Bar) -> str:
    """The split as a sentence."""
    linear, within, across = bar.shares
    return (
        f"Of the variance of the surrogate, {linear:.0%} is due to single components, {within:.0%} to interactions within a layer and {across:.0%} "
        "to interactions across layers."
    )


def _bar(label: str, shares: Mapping[str, Any]) -> Bar:
    linear, within, across = (float(shares.get(name) or 0.0) / _total(shares) for name in SHARES)
    return Bar(label, (linear, within, across))


def _total(shares: Mapping[str, Any]) -> float:
    return sum(float(shares.get(name) or 0.0) for name in SHARES)


def _named(layers: Sequence[int]) -> str:
    first, last = min(layers), max(layers)
    if first == last:
        return f"layer {first}"
    return f"layers {first} to {last}" if last - first + 1 == len(layers) else f"layers {', '.join(str(layer) for layer in sorted(layers))}"
