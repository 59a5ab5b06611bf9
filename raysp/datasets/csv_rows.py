"""Rows of CSV files: every cell is text, and an empty one is absent."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from raysp.datasets.cells import json_line
from raysp.datasets.rows import Column, FormatError, Rows

#: A cell in quotation marks behind a blank, which a CSV reader takes for text unless it is told to skip the blank.
_BLANK_QUOTED = re.compile(r'[ \t]+".*"[ \t]*', re.DOTALL)


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
        return (json_line(dict(zip(names, self._records[number], strict=False))) for number in numbers)

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
