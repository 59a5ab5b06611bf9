"""Rows that were written as JSON: lines, an array of objects, or an object of equally long arrays. Every row keeps the bytes that it was written as."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from raysp.datasets.cells import json_line, parse_json
from raysp.datasets.rows import Column, FormatError, Rows, stripped_names

#: The line breaks of an object in a JSON array, with the indentation around them; a string has none.
_BREAK = re.compile(r"[ \t\r\n]*\n[ \t\r\n]*")
#: What stands between the elements of an array.
_GAP = re.compile(r"[ \t\r\n,]*")


class JsonRows(Rows):
    """JSON objects, kept as the bytes that they were written as and parsed when they are asked for."""

    def __init__(self, lines: Sequence[bytes], parsed: Iterable[Mapping[str, Any]]) -> None:
        """The text of every row, and the rows, which are looked through once."""
        self._lines = lines
        self._columns: dict[str, Column] = {}
        for number, row in enumerate(parsed, 1):
            stripped = stripped_names(row)
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
        return cls([json_line(row) for row in rows], rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._lines)

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        return (stripped_names(parse_json(self._lines[number].decode("utf-8", "surrogatepass").lstrip())[0]) for number in numbers)

    def column(self, name: str) -> Column:
        """What a column holds."""
        return self._columns[name]

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The rows as they were written; those of an array on one line each."""
        return (self._lines[number] for number in numbers)


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
