"""Masks of one game that more than one order asks for: who has them measured, and who waits for the answer."""

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Duplicates(Generic[T]):
    """An index from masks to those who ask for them, each an order and a row of it: the first has the mask measured, the others wait."""

    __slots__ = ("_first", "_others")

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[T, int]] = {}
        self._others: dict[bytes, list[tuple[T, int]]] = {}

    @property
    def shared(self) -> bool:
        """Whether anybody waits for somebody else's answer."""
        return bool(self._others)

    def add(self, order: T, keys: Sequence[bytes], rows: Sequence[int]) -> list[int]:
        """Add rows of an order, and return those that somebody else has measured."""
        waiting: list[int] = []
        for row in rows:
            mine = order, row
            if self._first.setdefault(keys[row], mine) is not mine:
                self._others.setdefault(keys[row], []).append(mine)
                waiting.append(row)
        return waiting

    def claim(self, order: T, keys: Sequence[bytes], rows: Sequence[int]) -> None:
        """Add rows that the order has measured already; a mask that another order has measured as well stays with that one."""
        for row in rows:
            self._first.setdefault(keys[row], (order, row))

    def take(self, order: T, keys: Sequence[bytes], rows: Sequence[int]) -> list[tuple[int, T, int]]:
        """Remove rows that were answered; those who waited for them, each with the place in `rows` of its answer."""
        found: list[tuple[int, T, int]] = []
        first, others = self._first, self._others
        for place, row in enumerate(rows):
            key = keys[row]
            holder = first.get(key)
            if holder is None or holder[0] is not order or holder[1] != row:
                continue
            del first[key]
            if others and key in others:
                found += [(place, waiting, its_row) for waiting, its_row in others.pop(key)]
        return found

    def leave(self, order: T, keys: Sequence[bytes], rows: Sequence[int]) -> dict[int, tuple[T, int]]:
        """Remove rows of an order that is given up; those that others wait for, each with the order and row that takes over."""
        heirs: dict[int, tuple[T, int]] = {}
        for row in rows:
            key = keys[row]
            waiting = self._others.get(key)
            holder = self._first.get(key)
            if holder is not None and holder[0] is order and holder[1] == row:
                if waiting is None:
                    del self._first[key]
                    continue
                heirs[row] = self._first[key] = waiting.pop(0)
            elif waiting is not None:
                waiting[:] = [mine for mine in waiting if mine[0] is not order or mine[1] != row]
            if not waiting:
                self._others.pop(key, None)
        return heirs
