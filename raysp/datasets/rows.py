"""The rows of a data set behind one interface, whatever format they were written in: JSON, CSV, or Arrow (Parquet, saved folders, the hub).

Cells are what the file says: no type is inferred, so that a column that nobody uses cannot spoil the others. Column names are compared without the blanks
around them. Rows can be written again exactly as they were read.
"""

import bisect
import csv
import io
import itertools
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.datasets.cells import NumberText, checked_text, kind_of, parse_json, text_of
from raysp.errors import UserError

#: The line breaks of an object in a JSON array, with the indentation around them; a string has none.
_BREAK = re.compile(r"[ \t\r\n]*\n[ \t\r\n]*")
#: What stands between the elements of an array.
_GAP = re.compile(r"[ \t\r\n,]*")
#: A cell in quotation marks behind a blank, which a CSV reader takes for text unless it is told to skip the blank.
_BLANK_QUOTED = re.compile(r'[ \t]+".*"[ \t]*', re.DOTALL)
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


class JsonRows(Rows):
    """JSON objects, kept as the bytes that they were written as and parsed when they are asked for."""

    def __init__(self, lines: Sequence[bytes], parsed: Iterable[Mapping[str, Any]]) -> None:
        """The text of every row, and the rows, which are looked through once."""
        self._lines = lines
        self._columns: dict[str, Column] = {}
        for number, row in enumerate(parsed, 1):
            stripped = _stripped(row)
            for name, cell in stripped.items():
                self._columns.setdefault(name, Column()).add(number, cell)
            if len(stripped) < len(row):
                for name in stripped:
                    self._columns[name].repeated |= sum(key.strip() == name for key in row) > 1
        self.names = tuple(self._columns)

    @classmethod
    def from_text(cls, text: str) -> "JsonRows":
        """The rows of JSON lines, of an array of objects, or of an object of equally long arrays. FormatError, which says where, for anything else."""
        body = text.lstrip()
        if body.startswith("["):
            return cls(*_array(text, len(text) - len(body)))
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if body.startswith("{") and not _is_object(lines[0][1]):
            columns, end = _whole(text, len(text) - len(body))
            if not text[end:].strip():
                return cls.from_rows(_transposed(columns))
        return cls([line.rstrip("\r").encode("utf-8", "surrogatepass") for _, line in lines], (_object(line, number) for number, line in lines))

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "JsonRows":
        """Rows that were not read from text."""
        return cls([_dumped(row) for row in rows], rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._lines)

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        return (_stripped(parse_json(self._lines[number].decode("utf-8", "surrogatepass").lstrip())[0]) for number in numbers)

    def column(self, name: str) -> Column:
        """What a column holds."""
        return self._columns[name]

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The rows as they were written; those of an array on one line each."""
        return (self._lines[number] for number in numbers)


def _stripped(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with blanks around names removed; of two names that are then the same, the first counts."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        found.setdefault(name.strip(), cell)
    return found


def _dumped(row: Mapping[str, Any]) -> bytes:
    pieces = (f"{json.dumps(name, ensure_ascii=False)}: {_json_cell(cell)}" for name, cell in row.items())
    return ("{" + ", ".join(pieces) + "}").encode("utf-8", "surrogatepass")


def _json_cell(cell: Any) -> str:
    """A cell as JSON; numbers keep their digits at every depth."""
    if isinstance(cell, NumberText):
        return str(cell)
    if isinstance(cell, Mapping):
        return _dumped(cell).decode("utf-8", "surrogatepass")
    if isinstance(cell, list | tuple):
        return "[" + ", ".join(map(_json_cell, cell)) + "]"
    return json.dumps(cell, ensure_ascii=False, default=str)


def _whole(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`; FormatError naming the line where it is wrong."""
    try:
        return parse_json(text, start)
    except json.JSONDecodeError as error:
        raise FormatError(f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except RecursionError:
        raise FormatError("is nested too deeply to be read") from None


def _is_object(line: str) -> bool:
    try:
        _object(line, 1)
    except FormatError:
        return False
    return True


def _object(line: str, number: int) -> Mapping[str, Any]:
    """The one object of a line."""
    body = line.lstrip()
    try:
        value, end = parse_json(body)
    except json.JSONDecodeError as error:
        raise FormatError(f"is not valid JSON (line {number}, column {error.colno + len(line) - len(body)}: {error.msg})") from None
    except RecursionError:
        raise FormatError(f"is nested too deeply to be read (line {number})") from None
    if rest := body[end:].lstrip():
        raise FormatError(f"is not valid JSON (line {number}, column {len(line) - len(rest) + 1}: more text after the row)")
    if not isinstance(value, Mapping):
        raise FormatError(f"has a line that is not a JSON object (line {number})")
    return value


def _array(text: str, start: int) -> tuple[list[bytes], list[Mapping[str, Any]]]:
    """The objects of an array, as text on one line each and as values."""
    _, end = _whole(text, start)  # wrong brackets and commas are reported here
    if text[end:].strip():
        raise FormatError("has more text behind its array")
    lines: list[bytes] = []
    rows: list[Mapping[str, Any]] = []
    at = _after(_GAP, text, start + 1)
    while text[at] != "]":
        value, stop = parse_json(text, at)
        if not isinstance(value, Mapping):
            raise FormatError(f"has an element that is not an object (element {len(rows) + 1})")
        lines.append(_BREAK.sub(" ", text[at:stop]).encode("utf-8", "surrogatepass"))
        rows.append(value)
        at = _after(_GAP, text, stop)
    return lines, rows


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where what the pattern matches at a place ends."""
    matched = pattern.match(text, at)
    return matched.end() if matched else at


def _transposed(columns: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of an object of equally long arrays."""
    lengths = {len(cells) for cells in columns.values() if isinstance(cells, list)}
    if len(lengths) != 1 or not all(isinstance(cells, list) for cells in columns.values()):
        raise FormatError("is one JSON object")
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


class CsvRows(Rows):
    """Rows of a CSV file: every cell is text, and an empty one is absent."""

    def __init__(self, text: str) -> None:
        """FormatError, which says where, for a text that is not CSV, or a row that has more cells than the header."""
        self._header, self._records, self._raw = _csv(text, skip_blanks=False)
        if any(name[:1] in (" ", "\t") for name in self._header) and any(map(_BLANK_QUOTED.fullmatch, _leading([self._header, *self._records]))):
            self._header, self._records, self._raw = _csv(text, skip_blanks=True)
        stripped = [name.strip() for name in self._header]
        self.names = tuple(dict.fromkeys(stripped))
        self._places = {name: stripped.index(name) for name in self.names}
        self._repeated = {name for name in self.names if stripped.count(name) > 1}

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._records)

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        for number in numbers:
            record = self._records[number]
            yield {name: record[place] or None for name, place in self._places.items() if place < len(record)}

    def column(self, name: str) -> Column:
        """What a column holds."""
        place = self._places[name]
        filled = sum(place < len(record) and bool(record[place]) for record in self._records)
        return Column(filled, "text" if filled else None, repeated=name in self._repeated)

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The cells as JSON strings under the names of the header."""
        names = [name if (count := self._header[:place].count(name)) == 0 else f"{name}.{count}" for place, name in enumerate(self._header)]
        return (_dumped(dict(zip(names, self._records[number], strict=False))) for number in numbers)

    def csv_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The header and these rows as they were written, each without the end of its last line."""
        return (self._raw[number + 1].rstrip("\r\n").encode() for number in (-1, *numbers))


def _leading(records: Iterable[Sequence[str]]) -> Iterator[str]:
    return (cell for record in records for cell in record if cell[:1] in (" ", "\t"))


def _csv(text: str, *, skip_blanks: bool) -> tuple[list[str], list[list[str]], list[str]]:
    """The header, the records that are not empty, and the text of the header and of each record."""
    csv.field_size_limit(sys.maxsize)  # a cell may be a document
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(iter(lines), strict=True, skipinitialspace=skip_blanks)
    records: list[list[str]] = []
    raw: list[str] = []
    began = 0
    try:
        for record in reader:
            if record:
                records.append(record)
                raw.append("".join(lines[began : reader.line_num]))
            began = reader.line_num
            if record and len(record) > len(records[0]):
                raise FormatError(f"has {len(record)} cells in line {began}, and its header has {len(records[0])} (quote cells that hold commas)")
    except csv.Error as error:
        raise FormatError(f"is not valid CSV (in the row that begins at line {began + 1}: {error})") from None
    return (records[0] if records else []), records[1:], raw


class ArrowRows(Rows):
    """Rows of a `datasets.Dataset`. Labels that are stored as numbers are read by their names."""

    def __init__(self, data: Any) -> None:
        """The data set, which stays on disk where it is."""
        self._data = data
        self._written = {name: name.strip() for name in data.column_names}
        self.names = tuple(dict.fromkeys(self._written.values()))
        self._convert: dict[str, Callable[[Any], Any]] = {}
        for name, feature in data.features.items():
            if hasattr(feature, "names"):
                self._convert[name] = lambda cell, known=feature.names: known[cell] if isinstance(cell, int) and cell >= 0 else cell
            elif getattr(feature, "dtype", None) in ("float32", "float16"):
                self._convert[name] = _shortest

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._data)

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        for row in self._data.select(list(numbers)).to_list():
            yield _stripped({name: self._convert[name](cell) if name in self._convert else _without_nulls(cell) for name, cell in row.items()})

    def column(self, name: str) -> Column:
        """What a column holds."""
        found = [written for written, stripped in self._written.items() if stripped == name]
        cells = self._data.select_columns(found[:1]).with_format("arrow")[:].column(found[0])
        filled = len(cells) - cells.null_count
        first = next((cell for cell in cells.slice(0, 1000).to_pylist() if cell is not None), None)
        return Column(filled, kind_of(first), repeated=len(found) > 1)

    def check(self, field: str, name: str, limit: int | None = None) -> None:
        """UserError as for all rows, and for times that were text in the JSON file which the data set was made of: what was written is lost."""
        super().check(field, name, limit)
        if self._data.info.builder_name == "json" and self.column(name).kind == "time":
            raise UserError(field, name, "holds times that were text in the JSON file it was made of", "give that file, or store the column as text")

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The cells as JSON."""
        return map(_dumped, self._data.select(list(numbers)).to_list())

    def table(self, numbers: Iterable[int]) -> Any:
        """These rows as an Arrow table."""
        return self._data.select(list(numbers)).with_format("arrow")[:]


def _without_nulls(cell: Any) -> Any:
    """A nested cell without the fields that it has only because other rows have them: Arrow fills them with null."""
    if isinstance(cell, Mapping):
        return {key: _without_nulls(value) for key, value in cell.items() if value is not None}
    return [_without_nulls(value) for value in cell] if isinstance(cell, list) else cell


def _shortest(cell: Any) -> Any:
    """A narrow float by its shortest digits rather than by those of the double that holds it."""
    import numpy as np

    return float(str(np.float32(cell))) if isinstance(cell, float) else cell


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
