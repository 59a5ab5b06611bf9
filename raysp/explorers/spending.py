"""How a screening spends a budget: all pairs if they fit, otherwise pairs of the strongest components and a search for those covered by others, then triples."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from math import ceil, comb, isqrt, log2

import numpy as np

from raysp.explorers import candidates, covered
from raysp.explorers.candidates import Members
from raysp.explorers.ledger import Ledger
from raysp.spectral.sets import Floats

#: Share of what is left after single ablations that is reserved for triples if they were requested.
TRIPLE_SHARE = 1 / 3
#: Share of what is left for pairs that may go to the search for covered components, at most, and the multiples of n from which there is a search at all,
#: and from which it has its full share.
SEARCH_SHARE, LEAST_SEARCHED, FULLY_SEARCHED = 0.5, 1.0, 2.0
#: The least share of the components that the search counts as weak.
WEAK_SHARE = 0.25

Rounds = Generator[list[Members], None, None]


def everything(n: int, order: int) -> int:
    """The number of distinct masks that remove at most `order` of n components, or all of them."""
    return sum(comb(n, size) for size in {*range(min(order, n) + 1), n})


def strengths(effects: Floats, pairs: Mapping[Members, float]) -> Floats:
    """How much each component matters, float64 `(n,)`: its largest absolute single effect or deviation, so that components that are covered for count."""
    found = np.abs(effects)
    for members, value in pairs.items():
        for i in members:
            found[i] = max(found[i], abs(value))
    return found


def strongest_first(strength: Floats, included: Sequence[int]) -> list[int]:
    """All components, those included first, then by decreasing strength."""
    return list(dict.fromkeys([*included, *np.argsort(-strength, kind="stable").tolist()]))


def spend(ledger: Ledger, ranking: Floats | None, included: Sequence[int], order: int, *, reserve: bool, suspected: Sequence[Members] | None = None) -> Rounds:
    """Yield rounds of ablations until the budget is spent or every set up to `order` is measured; `reserve` keeps a share for triples.

    Components are ranked by `ranking` (`(n,)`), and single effects are measured with their pairs; None: by single effects, all of which were measured. Pairs that
    are `suspected` to be strong, the strongest first, take the place of those of strong components and of the search for covered ones.
    """
    share = int(ledger.room * TRIPLE_SHARE) if reserve else 0
    most = ledger.room - share
    if ranking is None:
        ranking = ledger.effects()
        if suspected is None or most >= comb(ledger.n, 2):
            most = yield from _strong_and_covered(ledger, ranking, included, most)
        elif sets := ledger.afford([*candidates.pairs_among(included), *suspected], most):
            yield sets
            most -= len(sets)
    yield from _fill(ledger, ranking, included, most)
    before = -1
    while order > 2 and ledger.room not in {0, before}:
        before = ledger.room
        yield from more_triples(ledger, ledger.room)
        yield from _fill(ledger, ranking, included, ledger.room)


def more_triples(ledger: Ledger, most: int) -> Rounds:
    """Up to `most` more triples whose pairs were measured, those with the strongest pairs first."""
    ledger.note_pairs()
    asked = sum(len(members) == 3 for members in ledger.asked)
    if sets := ledger.afford(candidates.ranked_triples(ledger.n, ledger.pairs, max(most, 0) + asked), most):
        yield sets


def _strong_and_covered(ledger: Ledger, effects: Floats, included: Sequence[int], most: int) -> Generator[list[Members], None, int]:
    """Unless all pairs fit in `most` ablations: the pairs of the strongest components, and the search for covered ones. Returns what is left of `most`."""
    n = ledger.n
    before = ledger.room
    if most >= comb(n, 2):
        return most
    ranked = strongest_first(np.abs(effects), included)
    searching = _searching(n, most)
    kept = fitting(most - searching)
    if sets := ledger.afford(candidates.pairs_among(ranked[:kept])):
        yield sets
    ledger.note_pairs()
    strong = min(kept, n - ceil(WEAK_SHARE * n))
    yield from covered.search(ledger, ranked[:strong], ranked[strong:], searching)
    return most - (before - ledger.room)


def _searching(n: int, most: int) -> int:
    """How many of `most` ablations may go to the search: fewer if nearly all pairs fit, and none if few do, as a search then ends before it finds a pair."""
    if most < LEAST_SEARCHED * n:
        return 0
    share = SEARCH_SHARE * min(1.0, most / (FULLY_SEARCHED * n))
    return min(int(most * share), 2 * (comb(n, 2) - most) + 3 * ceil(log2(n)))


def fitting(most: int) -> int:
    """The largest number of components whose pairs number at most `most`, at least 1."""
    return (1 + isqrt(1 + 8 * max(most, 0))) // 2


def _fill(ledger: Ledger, ranking: Floats, included: Sequence[int], most: int) -> Rounds:
    """Exactly `most` more ablations of pairs, or all that are left: those among the strongest components, then of the next one with the strongest."""
    ledger.note_pairs()
    ranked = strongest_first(strengths(ranking, ledger.pairs), included)
    sets: list[Members] = []
    for place, last in enumerate(ranked):
        if len(sets) >= most:
            break
        wanted = [(last,), *((min(i, last), max(i, last)) for i in ranked[:place])]
        sets.extend(members for members in wanted if not ledger.has(members))
    if sets := ledger.afford(sets, most):
        yield sets


def kept(n: int, ranking: Floats, included: Sequence[int], pairs: Mapping[Members, float]) -> list[int]:
    """The components all of whose pairs with each other were measured, and those in the strongest pairs, ascending."""
    measured = np.zeros((n, n), dtype=np.bool_)
    for i, j in pairs:
        measured[i, j] = measured[j, i] = True
    among: list[int] = []
    for i in strongest_first(np.abs(ranking), included):
        if measured[i, among].all():
            among.append(i)
    strongest = sorted(pairs, key=lambda members: -abs(pairs[members]))[: covered.STRONGEST]
    return sorted({*among, *(i for members in strongest if pairs[members] for i in members)})
