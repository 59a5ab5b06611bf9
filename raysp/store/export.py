"""Tables as CSV, JSON or Parquet bytes."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from raysp.errors import UserError
from raysp.store.packing import Table


def write_table(table: Table, form: str, stream: BinaryIO) -> None:
    """Write an Arrow table to a binary stream as csv, json (a list of objects) or parquet. Raises UserError for another format.

    Masks are written as hexadecimal text, lists in CSV as JSON, and non-finite numbers as null (JSON) or empty (CSV).
    """
    if form not in WRITERS:
        raise UserError("format", form, "is unknown", f"choose one of table, {', '.join(WRITERS)}")
    WRITERS[form](table, stream)


def _csv(table: Table, stream: BinaryIO) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in rows(table):
        writer.writerow([_cell(plain(value)) for value in row])
    stream.write(text.getvalue().encode())


def _json(table: Table, stream: BinaryIO) -> None:
    found = [{key: plain(value) for key, value in zip(table.column_names, row, strict=True)} for row in rows(table)]
    stream.write((json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _parquet(table: Table, stream: BinaryIO) -> None:
    try:
        parquet.write_table(table, stream)
    except pa.ArrowNotImplementedError as error:
        raise UserError("format", "parquet", f"cannot hold these columns ({error})", "cast them to text in the query, as in interval::text") from None


WRITERS: dict[str, Callable[[Table, BinaryIO], None]] = {"csv": _csv, "json": _json, "parquet": _parquet}


def rows(table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a table as Python values; what Python has no value for, such as dates after the year 9999, is text."""
    return zip(*(_values(column) for column in table.columns), strict=True)


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        if isinstance(scalar, pa.MapScalar):
            return [tuple(_value(part) for part in entry.values()) for entry in scalar.values]
        if isinstance(scalar, pa.ListScalar):
            return [_value(each) for each in scalar]
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(each) for name, each in scalar.items()}
        return pa.array([scalar]).to_string().strip("[]\n ")


def plain(value: Any) -> Any:
    """Convert a value of a table to its JSON equivalent."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return value.hex()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date():
            return value.isoformat()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
