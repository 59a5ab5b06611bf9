"""Rows of Arrow tables: Parquet files, saved folders and data sets of the hub."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from raysp.datasets.cells import json_line, kind_of
from raysp.datasets.rows import Column, Rows, stripped_names
from raysp.errors import UserError


class ArrowRows(Rows):
    """Rows of a `datasets.Dataset`. Labels that are stored as numbers are read by their names."""

    def __init__(self, data: Any, labels: Mapping[str, Sequence[str]] | None = None, *, made_of_json: bool = False) -> None:
        """The data set, which stays on disk where it is.

        `labels` are the names of labels by column, beside those that the data set itself knows; `made_of_json` says that it was made of JSON files.
        """
        self._data = data
        self._made_of_json = made_of_json or data.info.builder_name == "json"
        self._written = {name: name.strip() for name in data.column_names}
        self.names = tuple(dict.fromkeys(self._written.values()))
        self._convert: dict[str, Callable[[Any], Any]] = {}
        for name, feature in data.features.items():
            known = (labels or {}).get(name) or getattr(feature, "names", None)
            if known is not None:
                self._convert[name] = lambda cell, known=known: known[cell] if isinstance(cell, int) and 0 <= cell < len(known) else cell
            elif getattr(feature, "dtype", None) in ("float32", "float16"):
                self._convert[name] = _shortest

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._data)

    def take(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The cells of these rows by column, in the given order."""
        for row in self._data.select(list(numbers)).to_list():
            yield stripped_names({name: self._convert[name](cell) if name in self._convert else _without_nulls(cell) for name, cell in row.items()})

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
        if self._made_of_json and self.column(name).kind == "time":
            raise UserError(field, name, "holds times that were text in the JSON file it was made of", "give that file, or store the column as text")

    def json_lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The cells as JSON."""
        return map(json_line, self._data.select(list(numbers)).to_list())

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
