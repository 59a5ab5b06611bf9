"""Cells of a data set: what a file says in one row and column, kept as it is written. Knows nothing of files.

JSON numbers keep their digits (`1`, `1.0` and forty digits stay apart), and strings are never taken for dates. `text_of` is what a model reads of a cell,
`decoded` what a program reads (the arguments of a tool, for example).
"""

import json
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import Any

from raysp.errors import UserError


class NumberText(str):
    """A number of a JSON file, as it is written there."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_float=NumberText, parse_int=NumberText, parse_constant=NumberText)
#: Kinds of cells that are read as text.
SCALARS = ("text", "number", "boolean", "time")


def parse_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends. json.JSONDecodeError for other text, RecursionError for a value nested too deeply."""
    return _DECODER.raw_decode(text, start)


def kind_of(cell: object) -> str | None:
    """What a cell holds, in a word; None for a cell that is absent or null."""
    if cell is None:
        return None
    if isinstance(cell, bool):
        return "boolean"
    if isinstance(cell, NumberText | Number | Decimal):
        return "number"
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, date | time | timedelta):
        return "time"
    if isinstance(cell, list | tuple):
        return "list"
    return "object" if isinstance(cell, Mapping) else "binary"


def text_of(cell: object) -> str:
    """A cell as text, without checks: empty for an absent one, JSON for lists and objects."""
    match kind_of(cell):
        case None:
            return ""
        case "boolean":
            return "true" if cell else "false"
        case "number" if cell != cell:  # noqa: PLR0124  no number equals itself but NaN
            return "NaN"
        case "list" | "object":
            return json.dumps(decoded(cell), ensure_ascii=False, default=str)
        case _:
            return str(cell)


def checked_text(place: str, cell: object) -> str:
    """A cell as text; empty for an absent one. UserError (about `place`) for a list, an object, bytes, or text that no encoding can write."""
    kind = kind_of(cell)
    if kind is not None and kind not in SCALARS:
        raise UserError(place, decoded(cell), f"is not text ({kind})", "write it as a string")
    text = text_of(cell)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(place, text, "has half of a surrogate pair", "write the whole character")
    return text


def decoded(cell: Any) -> Any:
    """A cell as Python values: numbers are int or float at every depth."""
    if isinstance(cell, NumberText):
        try:
            return int(cell)
        except ValueError:  # a fraction, an exponent, NaN, or more digits than Python converts
            return float(cell)
    if isinstance(cell, Mapping):
        return {key: decoded(value) for key, value in cell.items()}
    return [decoded(value) for value in cell] if isinstance(cell, list | tuple) else cell


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a JSON object on one line, without its end; numbers keep their digits at every depth."""
    pieces = (f"{json.dumps(name, ensure_ascii=False)}: {_json_text(cell)}" for name, cell in row.items())
    return ("{" + ", ".join(pieces) + "}").encode("utf-8", "surrogatepass")


def _json_text(cell: Any) -> str:
    if isinstance(cell, NumberText):
        return str(cell)
    if isinstance(cell, Mapping):
        return json_line(cell).decode("utf-8", "surrogatepass")
    if isinstance(cell, list | tuple):
        return "[" + ", ".join(map(_json_text, cell)) + "]"
    return json.dumps(cell, ensure_ascii=False, default=str)
