"""What a screening tells about what it measured and what it did not."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from raysp.explorers.candidates import Deviations
from raysp.explorers.spending import everything
from raysp.specs.explorers import ScreenOptions


def measured_sets(n: int, kept: Sequence[int], found: Deviations, order: int, *, spends: bool) -> list[str]:
    """Sentences on the pairs and triples that were measured; `kept` are the components chosen for pairs."""
    k = len(kept)
    among = set(kept)
    pairs = sum(len(members) == 2 for members in found)
    inside = sum(len(members) == 2 and among.issuperset(members) for members in found)
    triples = sum(len(members) == 3 for members in found)
    if not spends:
        notes = [f"{inside} of the {comb(k, 2)} pairs among the {k} strongest of {n} components were measured; pairs with weaker components were not."]
        return [*notes, f"{triples} of the {comb(k, 3)} triples were measured: those whose pairs deviate most from additivity."] if order > 2 else notes
    if pairs == comb(n, 2):
        notes = [f"All {pairs} pairs of the {n} components were measured."]
    else:
        which = f"{inside} of the {comb(k, 2)} among the {k} components with the largest single effects or deviations"
        which += f", and {pairs - inside} other{'s' if pairs - inside > 1 else ''}" if pairs > inside else ""
        notes = [f"{pairs} of the {comb(n, 2)} pairs of {n} components were measured: {which}. Pairs that were not measured are assumed to be additive."]
    if not triples:
        return notes
    chosen = ": those whose pairs deviate most from additivity" if pairs == comb(n, 2) and triples < comb(n, 3) else ""
    return [*notes, f"{triples} of the {comb(n, 3)} triples were measured{chosen}."]


def leftover(options: ScreenOptions, measured: int, n: int) -> list[str]:
    """What is left of the budget, and what would use it; nothing if it was spent."""
    left = 0 if options.budget is None else options.budget - measured
    if left <= 0:
        return []
    unused = f"{left} of {options.budget} evaluations were not used, as "
    if not isinstance(options.top_k, str):
        return [f"{unused}top_k is {options.top_k:g}: leave it out to spend them on further pairs and triples."]
    order = options.order or 3
    if order == 2 and n > 2:
        return [f"{unused}all pairs are measured and order is 2: leave it out to spend them on triples."]
    return [f"{unused}all {everything(n, order)} masks that screen can ask for are measured."]
