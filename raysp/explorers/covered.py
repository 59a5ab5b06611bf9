"""A search for components that are weak alone because others cover for them: adaptive group tests.

Let f(R) = v(all) - v(all without R). Blocks of weak components are removed together, and each block together with a strong component or with another block.
f(A and C) - f(A) - f(C) is the sum of the deviations from additivity between A and C, and f(A) less its single effects that within A. Where such a sum,
less what measured pairs explain of it, is larger than the deviations of all but a few measured pairs, the block is halved, down to pairs. The halves of a
block that does not deviate by itself are taken not to either, and are not removed alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from math import comb

from raysp.explorers.candidates import Members
from raysp.explorers.ledger import Ledger
from raysp.spectral.fourier import ROUNDING

#: A block is halved if what it hides would be among this many strongest pairs.
STRONGEST = 10
#: Share of the search's evaluations for blocks as they are, before any is halved.
FIRST_SHARE = 0.5
#: Cells halved in one round, at most; and only those of at least this share of the largest sum.
AT_ONCE, NEAR_LARGEST = 8, 0.5


@dataclass(frozen=True)
class Cell:
    """The pairs between two disjoint sets, or within `first` if `second` is empty, with the sum of their deviations."""

    first: Members
    second: Members
    total: float

    def holds(self, pair: Members) -> bool:
        """Whether this pair is one of the cell's."""
        i, j = pair
        if not self.second:
            return i in self.first and j in self.first
        return (i in self.first and j in self.second) or (j in self.first and i in self.second)


def union(first: Iterable[int], second: Iterable[int]) -> Members:
    """The union of two disjoint sets, ascending."""
    return tuple(sorted((*first, *second)))


def search(ledger: Ledger, strong: Sequence[int], weak: Sequence[int], most: int) -> Generator[list[Members], None, None]:
    """Yield rounds of sets whose ablations locate covered components, up to `most` new ones; resume when they are measured.

    `strong` are the strong components, the strongest first; every single ablation was measured.
    """
    before = len(ledger.asked)
    cells = yield from _first(ledger, strong, weak, int(most * FIRST_SHARE))
    while (left := most - (len(ledger.asked) - before)) > 0 and (chosen := _worth_halving(ledger, cells)):
        wanted: list[Members] = []
        halved: list[Cell] = []
        for cell in chosen:
            new = [members for members in dict.fromkeys(_needs(ledger, cell)) if members not in ledger.asked and members not in wanted]
            if len(wanted) + len(new) > min(left, ledger.room):
                break
            wanted.extend(new)
            halved.append(cell)
        if not halved:
            return
        if asked := ledger.afford(wanted):
            yield asked
        ledger.note_pairs()
        cells = [cell for cell in cells if cell not in halved] + [part for cell in halved for part in _halves(ledger, cell)]


def _first(ledger: Ledger, strong: Sequence[int], weak: Sequence[int], most: int) -> Generator[list[Members], None, list[Cell]]:
    """Measure blocks of weak components, alone, with each other, and with strong components, up to `most` ablations; returns their cells."""
    blocks = _blocks(sorted(weak), len(strong), most)
    cells = [(block, ()) for block in blocks if len(block) > 1]
    cells += [(first, second) for k, first in enumerate(blocks) for second in blocks[k + 1 :]]
    cells += [((i,), block) for i in strong for block in blocks]
    asked = ledger.afford([*blocks, *(union(*cell) for cell in cells)], most)
    if asked:
        yield asked
    ledger.note_pairs()
    return [Cell(*cell, _total(ledger, *cell)) for cell in cells if all(map(ledger.has, (union(*cell), *filter(None, cell))))]


def _blocks(weak: Sequence[int], strong: int, most: int) -> list[Members]:
    """The weak components in neighbouring blocks, as many as can all be tested with each other and `strong` components by `most` ablations."""
    count = 1
    while count < len(weak) // 2 and (count + 1) * (1 + strong) + comb(count + 1, 2) <= most:
        count += 1
    bounds = [round(len(weak) * k / count) for k in range(count + 1)]
    return [tuple(weak[lo:hi]) for lo, hi in itertools.pairwise(bounds) if hi > lo]


def _total(ledger: Ledger, first: Members, second: Members) -> float:
    if not second:
        return ledger.effect(first) - sum(ledger.effect((i,)) for i in first)
    return ledger.effect(union(first, second)) - _alone(ledger, first) - _alone(ledger, second)


def _alone(ledger: Ledger, block: Members) -> float:
    """The effect of a block; of one that was not removed alone, the sum of its single effects and of its measured pairs."""
    return ledger.effect(block) if ledger.has(block) else _explained(ledger, block)


def _explained(ledger: Ledger, block: Members) -> float:
    return sum(ledger.effect((i,)) for i in block) + sum(ledger.pairs.get(pair, 0.0) for pair in itertools.combinations(block, 2))


def _deviates(ledger: Ledger, block: Members) -> bool:
    """Whether a block has more of an effect than its parts explain, by what makes a cell worth halving."""
    return ledger.has(block) and abs(ledger.effect(block) - _explained(ledger, block)) > _bar(ledger)


def _worth_halving(ledger: Ledger, cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose sums, less the deviations of measured pairs, are largest, if they would be among the strongest pairs; largest first."""
    bar = _bar(ledger)
    sums = {cell: abs(cell.total - sum(value for pair, value in ledger.pairs.items() if cell.holds(pair))) for cell in cells if not _is_measured(ledger, cell)}
    largest = max(sums.values(), default=0.0)
    worth = [cell for cell, size in sums.items() if size > bar and size >= NEAR_LARGEST * largest]
    return sorted(worth, key=lambda cell: (-sums[cell], cell.first, cell.second))[:AT_ONCE]


def _bar(ledger: Ledger) -> float:
    """The least sum that would be among the strongest pairs, and that is not rounding."""
    strongest = sorted((abs(value) for value in ledger.pairs.values()), reverse=True)
    return max(ROUNDING * ledger.scale * ledger.n, strongest[STRONGEST - 1] if len(strongest) >= STRONGEST else 0.0)


def _is_measured(ledger: Ledger, cell: Cell) -> bool:
    return len(cell.first) + len(cell.second) == 2 and ledger.has(union(cell.first, cell.second))


def _cut(cell: Cell) -> tuple[Members, Members, Members]:
    """The two halves of the larger set, the smaller first, and the other set."""
    large, other = (cell.first, cell.second) if len(cell.first) >= len(cell.second) else (cell.second, cell.first)
    return large[: len(large) // 2], large[len(large) // 2 :], other


def _needs(ledger: Ledger, cell: Cell) -> list[Members]:
    """The ablations with which a cell is halved."""
    half, rest, other = _cut(cell)
    if not half:
        return [union(cell.first, cell.second)]
    if not other:
        return [half, rest]
    return [*([half] if _deviates(ledger, union(half, rest)) else []), union(half, other)]


def _halves(ledger: Ledger, cell: Cell) -> list[Cell]:
    """The parts of a halved cell; none of one pair. The sum of one half is what the other leaves, in which sets of three are counted as well."""
    half, rest, other = _cut(cell)
    if not half:
        return []
    if other:
        total = _total(ledger, half, other)
        return [Cell(half, other, total), Cell(rest, other, cell.total - total)]
    within = [Cell(part, (), _total(ledger, part, ())) for part in (half, rest)]
    between = Cell(half, rest, cell.total - sum(part.total for part in within))
    return [*(part for part in within if len(part.first) > 1), between]
