"""Who takes over what a run gives up and others wait for: the leases that are out, and the rows that wait."""

import numpy as np

from raysp.scheduling.ledger import Part, Placed, RunShare

#: Rows of an order that is given up, and who takes them over: another order and its row.
Heirs = dict[int, tuple[Placed, int]]


def heirs_of(run: RunShare, *states: int) -> dict[Placed, Heirs]:
    """Take the rows of a run's orders that are in one of these states out of the index of masks: who inherits which of them."""
    found: dict[Placed, Heirs] = {}
    for placed in run.orders.values():
        index, leaving = placed.game.duplicates, np.flatnonzero(np.isin(placed.state, states))
        found[placed] = {} if index is None or placed.keys is None else index.leave(placed, placed.keys, leaving.tolist())
    for mine in found.values():
        for row, first in list(mine.items()):
            heir: tuple[Placed, int] | None = first
            while heir is not None and heir[0].run is run:  # it leaves as well
                heir = found[heir[0]].get(heir[1])
            if heir is None:
                del mine[row]
            else:
                mine[row] = heir
    return found


def inherited(part: Part, heirs: Heirs) -> list[Part]:
    """The part of a lease or piece as it passes to the heirs of its rows."""
    _, rows, places = part
    found: dict[Placed, tuple[list[int], list[int]]] = {}
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        if row in heirs:
            other, its_row = heirs[row]
            mine = found.setdefault(other, ([], []))
            mine[0].append(its_row)
            mine[1].append(place)
    return [(other, np.array(its_rows, dtype=np.intp), np.array(its_places, dtype=np.intp)) for other, (its_rows, its_places) in found.items()]
