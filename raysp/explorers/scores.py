"""Loading and validation of precomputed single effects."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from raysp.blobs import read_bytes, shown
from raysp.errors import UserError
from raysp.spectral.sets import Floats

#: Column names recognised in a table with several columns.
COLUMNS = ("score", "scores", "value", "values", "effect")


def load_scores(path: str) -> Floats:
    """Load scores from a file (a path or a reference), float64 `(n,)`, one per component in the order of the components.

    Accepted formats are JSON (a list, or an object with the key `scores`), CSV and Parquet (a single column, or one with a name in `COLUMNS`), and npy
    (one-dimensional). Raises UserError for other files.
    """
    suffix = Path(shown(path)).suffix
    try:
        content = read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError("scores", path, "is not a file", "give a JSON, CSV, Parquet or npy file with one number per component") from None
    except (OSError, ValueError) as error:
        raise UserError("scores", path, f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the file") from None
    if suffix not in _READERS:
        raise UserError("scores", path, "has an unknown file type", f"give one of {', '.join(_READERS)}")
    try:
        scores = np.asarray(_READERS[suffix](content), dtype=np.float64)
    except Exception as error:  # noqa: BLE001  the libraries raise what the parsers below them raise
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError("scores", path, f"cannot be read ({told})", "give one number per component") from None
    if scores.ndim != 1:
        raise UserError("scores", path, f"has shape {scores.shape}", "give one number per component")
    return scores


def check_scores(scores: Floats, n: int, shown: object) -> Floats:
    """Return the scores if they are finite and there is one for each of n components. Raises UserError otherwise."""
    if len(scores) != n:
        raise UserError("scores", shown, f"contains {len(scores)} numbers for {n} components", f"give {n} numbers in the order of the components")
    if not np.isfinite(scores).all():
        raise UserError("scores", shown, f"contains {int((~np.isfinite(scores)).sum())} values that are not finite", "give one finite number per component")
    return scores


def _json(content: bytes) -> Any:
    read = json.loads(content)
    return read["scores"] if isinstance(read, dict) else read


def _csv(content: bytes) -> Any:
    from pyarrow import csv

    return _column(csv.read_csv(BytesIO(content)))


def _parquet(content: bytes) -> Any:
    from pyarrow import parquet

    return _column(parquet.read_table(BytesIO(content)))


def _npy(content: bytes) -> Any:
    return np.load(BytesIO(content), allow_pickle=False)


def _column(table: Any) -> Any:
    named = [name for name in table.column_names if name.lower() in COLUMNS]
    if len(table.column_names) > 1 and not named:
        raise ValueError(f"none of its columns {', '.join(table.column_names)} is named score or value")
    return table.column(named[0] if named else 0).to_numpy()


_READERS: Mapping[str, Callable[[bytes], Any]] = {".json": _json, ".csv": _csv, ".parquet": _parquet, ".npy": _npy}
