"""The rows of a data set behind one interface, whatever format they were written in; each format has a module of its own.

Cells are what the file says: no type is inferred, so that a column that nobody uses cannot spoil the others. Column names are compared without the blanks
around them. Rows can be written again exactly as they were read.
"""

import bisect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.datasets.cells import checked_text, kind_of, text_of
from raysp.errors import UserError

_WORDS = {"text": "text", "number": "a number", "boolean": "true or false", "time": "a time", "list": "a list", "object": "an object", "binary": "bytes"}


class FormatError(Exception):
    """A text that is not in the format it should be in; the message is the predicate of a sentence about the file."""


@dataclass(slots=True)
class Column:
    """What one column holds: how many rows fill it, the kind and row (from 1) of the first filled cell, and the row and kind of the first cell of another kind.

    `repeated` says that two columns have this name.
    """

    filled: int = 0
    kind: str | None = None
    first: int = 1
    changed: tuple[int, str] | None = None
    repeated: bool = False

    def add(self, row: int, cell: object) -> None:
        """Count the cell of a row."""
        kind = kind_of(cell)
        if kind is None:
            return
        self.filled += 1
        if self.kind is None:
            self.kind, self.first = kind, row
        elif kind != self.kind and self.changed is None:
            self.changed = (row, kind)

    def join(self, other: "Column", start: int) -> None:
        """Count the cells of the same column in a later file, whose rows begin at `start`."""
        self.filled += other.filled
        self.repeated |= other.repeated
        changed = other.changed
        if self.kind is not None and other.kind not in (None, self.kind):
            changed = (other.first, other.kind)
        if self.changed is None and changed is not None:
            self.changed = (start + changed[0], changed[1])
        self.kind = self.kind or other.kind


class Rows(ABC):
    """Rows of named cells. Numbers of rows count from 0 here, and from 1 in messages."""

    names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order; a row may lack columns."""

    @abstractmethod
    def column(self, name: str) -> Column:
        """What a column holds."""

    @abstractmethod
    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """These rows as JSON, one line each without its end; the very bytes that were read, where they were JSON."""

    def cells(self, name: str) -> list[Any]:
        """One column, None where a row lacks it."""
        return [row.get(name) for row in self.take(range(len(self)))]

    def check(self, field: str, name: str, limit: int | None = None) -> None:
        """UserError if the name stands for two columns, or the cells of the first `limit` rows are of different kinds."""
        column = self.column(name)
        if column.repeated:
            raise UserError(field, name, "is the name of two columns", "rename one of them")
        if column.changed is None or (limit is not None and column.changed[0] > limit):
            return
        number, kind = column.changed
        cell = next(self.take([number - 1]))[name]
        problem = f"is {_WORDS[kind]}, and the rows before have {_WORDS[column.kind or kind]}"
        raise UserError(f"{field} row {number}, {name}", cell, problem, "write all cells of the column alike")

    def texts(self, field: str, names: Iterable[str], limit: int | None = None, *, lists: Collection[str] = ()) -> Iterator[dict[str, str]]:
        """The text of the named columns in the first `limit` rows, without those that a row leaves empty; `lists` are columns that may hold lists, read as JSON.

        UserError as `check`, or for a cell that is not text.
        """
        used = [name for name in names if name in self.names]
        for name in used:
            self.check(field, name, limit)
        for number, row in enumerate(self.take(range(len(self) if limit is None else min(limit, len(self)))), 1):
            texts = {name: text_of(row.get(name)) if name in lists else checked_text(f"{field} row {number}, {name}", row.get(name)) for name in used}
            yield {name: text for name, text in texts.items() if text}


class JoinedRows(Rows):
    """The rows of several files, one after another."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        """At least one part."""
        self._parts = parts
        self._starts = list(itertools.accumulate((len(part) for part in parts), initial=0))
        self.names = tuple(dict.fromkeys(name for part in parts for name in part.names))

    def __len__(self) -> int:
        """The number of rows."""
        return self._starts[-1]

    def _place(self, number: int) -> tuple[Rows, int]:
        part = bisect.bisect_right(self._starts, number) - 1
        return self._parts[part], number - self._starts[part]

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        return (next(part.take([at])) for part, at in map(self._place, numbers))

    def column(self, name: str) -> Column:
        """What a column holds."""
        whole = Column()
        for part, start in zip(self._parts, self._starts, strict=False):
            if name in part.names:
                whole.join(part.column(name), start)
        return whole

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """These rows as JSON, as their files give them."""
        return (next(part.json_lines([at])) for part, at in map(self._place, numbers))


def stripped_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with blanks around names removed; of two names that are then the same, the first counts."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        found.setdefault(name.strip(), cell)
    return found
