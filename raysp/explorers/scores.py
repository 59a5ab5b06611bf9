"""Precomputed single effects, read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from raysp.errors import UserError
from raysp.spectral.sets import Floats

#: Columns taken from a table of several.
COLUMNS = ("score", "scores", "value", "values", "effect")


def load_scores(path: str) -> Floats:
    """Scores, float64 `(n,)`, one a component in their order.

    JSON: a list, or an object with `scores`. CSV, Parquet: one column, or one named score or value. npy: one dimension. UserError otherwise.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("scores", path, "is no file", "give a JSON, CSV, Parquet or npy file of one number a component")
    readers = {".json": _json, ".csv": _csv, ".parquet": _parquet, ".npy": _npy}
    if file.suffix not in readers:
        raise UserError("scores", path, "is of no known type", f"give one of {', '.join(readers)}")
    try:
        scores = np.asarray(readers[file.suffix](file), dtype=np.float64)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError("scores", path, f"cannot be read ({error})", "give one number a component") from None
    if scores.ndim != 1:
        raise UserError("scores", path, f"has shape {scores.shape}", "give one number a component")
    return scores


def check_scores(scores: Floats, n: int, shown: object) -> Floats:
    """The scores, if there is a finite one for each of n components; UserError otherwise."""
    if len(scores) != n:
        raise UserError("scores", shown, f"holds {len(scores)} numbers for {n} components", f"give {n}, in the order of the components")
    if not np.isfinite(scores).all():
        raise UserError("scores", shown, f"holds {int((~np.isfinite(scores)).sum())} values that are not finite", "give a finite number a component")
    return scores


def _json(file: Path) -> Any:
    read = json.loads(file.read_text(encoding="utf-8"))
    return read["scores"] if isinstance(read, dict) else read


def _csv(file: Path) -> Any:
    from pyarrow import csv

    return _column(csv.read_csv(file))


def _parquet(file: Path) -> Any:
    from pyarrow import parquet

    return _column(parquet.read_table(file))


def _npy(file: Path) -> Any:
    return np.load(file, allow_pickle=False)


def _column(table: Any) -> Any:
    named = [name for name in table.column_names if name.lower() in COLUMNS]
    if len(table.column_names) > 1 and not named:
        raise ValueError(f"its columns are {', '.join(table.column_names)}, none of them called score or value")
    return table.column(named[0] if named else 0).to_numpy()
