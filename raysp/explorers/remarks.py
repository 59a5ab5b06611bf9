"""What ProxySPEX tells the user about its fit and its masks, and which proxy is affordable for many queries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raysp.explorers.changes import Changes
from raysp.explorers.designs import ALL_SIZES, Design
from raysp.explorers.fitting import Fit
from raysp.explorers.proxies import GRADIENTS
from raysp.explorers.samples import CONSTANT_VALUE
from raysp.masks import Masks, Values, lookup
from raysp.spectral.fourier import FourierSurrogate

#: Deviation of the kept share of random masks from P(keep) above which it is noted.
ASTRAY = 0.03
#: Difference from v(all) - v(empty), relative to it or to the standard deviation of the values, above which it is noted that an index is not efficient.
GAP = 0.01
#: Queries times evaluations up to which each query is fitted with the proxy of the run; slow proxies take seconds for a few hundred evaluations.
AFFORDABLE = 5000
#: The proxy used beyond this limit, which takes a second or two with no noticeable loss of accuracy per query, and the proxies that are slow.
CHEAP, SLOW = "trees", ("auto", "kernel", "mlp")


def about_fit(found: Fit, values: Values, drawn: int) -> list[str]:
    """A sentence on how well the fit to `values` (`(m,)`), of which so many are of random masks, predicts."""
    if np.isnan(found.r2) and not np.ptp(values) > 0:
        return [CONSTANT_VALUE]
    if np.isnan(found.r2):
        return [f"All {drawn:,} random masks have the same value, although other masks do not; nothing could be learnt. Keep more components (keep auto)."]
    if set(found.weights) == {"singles"}:
        return [f"Interactions do not help: single effects alone predict equally well (cross-validated R² {found.r2_singles:.3f})."]
    return [f"Cross-validated R²: {found.r2:.3f}; single effects alone: {found.r2_singles:.3f}."]


def about_gradients(weights: Mapping[str, float]) -> str:
    """A sentence on the part that single effects by gradients have in a surrogate whose models have these weights."""
    share = sum(weight for name, weight in weights.items() if name.endswith(GRADIENTS))
    part = f"models that start from them make up {share:.0%} of the surrogate" if share else "they did not help, and are not used"
    return f"Single effects by the model's gradients were tried as a prior: {part}."


def about_ends(surrogate: FourierSurrogate, index: str, masks: Masks, values: Values) -> list[str]:
    """A sentence on the gap between what an efficient index distributes and v(all) - v(empty) as measured, if the index is one and the gap is not negligible."""
    n = masks.shape[1]
    ends = np.stack([np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)])
    rows = lookup(masks, ends)
    if index not in ALL_SIZES or (rows < 0).any():
        return []
    (whole, empty), (intact, nothing) = surrogate.predict(ends), values[rows]
    told, there = whole - empty, intact - nothing
    if abs(told - there) <= GAP * max(abs(there), float(np.std(values))):
        return []
    name = f"{told:.3g}, not to v(all) - v(empty) = {there:.3g}"
    return [f"The surrogate does not hold the values measured at the ends: with index {index}, effects and interactions sum to {name}."]


def about_given(share: float) -> str:
    """A sentence on masks passed to `fit` that keep another share of the components than one half."""
    return f"The masks keep {share:.0%} of the components on average; effects and intervals refer to such masks."


def about_design(design: Design, drawn: Masks, pairs: int, changes: Changes | None, *, chosen: bool) -> list[str]:
    """Sentences on the masks of a design: those `drawn`, the number of pairs measured at the intact input and the slopes there, and P(keep) if a pilot has `chosen` it."""
    found: list[str] = []
    p, share = design.keep_probability, float(drawn.mean()) if drawn.size else design.keep_probability
    if abs(share - p) > ASTRAY and not design.spread:
        # Masks are never repeated, and with few components only few masks keep nearly all of them.
        found.append(f"Distinct masks that keep each component with probability {p:g} are few; those measured keep {share:.0%} of the components on average.")
    elif chosen:
        found.append(f"Masks keep each component with probability {p:g}.")
    if changes is not None and changes.removed.any():
        found.append(changes.note())
    if pairs:
        by = "a first fit expected, or could not rule out," if changes is None or not changes.agree else "slopes suggest"
        found.append(f"{pairs:,} pairs were measured at the intact input: those for which {by} the strongest deviations.")
    return found


def affordable_proxy(proxy: str, evaluations: int, queries: int) -> tuple[str, str | None]:
    """The proxy with which each query is fitted, and a note if it differs from that of the run (else None)."""
    if proxy == "gradient":
        return CHEAP, f"Each query is fitted with proxy {CHEAP}, because the gradient estimate is available only for their mean."
    if proxy in SLOW and queries * evaluations > AFFORDABLE:
        return CHEAP, f"Each query is fitted with proxy {CHEAP}, because {queries:,} queries with {evaluations:,} evaluations are too many for {proxy}."
    return proxy, None
