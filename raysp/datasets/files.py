"""Files of rows, by the end of their names: JSON, CSV and Parquet, plain or compressed. Files are read as they are, without a cache of another library."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysp.datasets.arrow_rows import ArrowRows
from raysp.datasets.csv_rows import CsvRows
from raysp.datasets.json_rows import JsonRows
from raysp.datasets.rows import FormatError, Rows
from raysp.errors import UserError

#: Formats by the end of a file's name, before that of its compression.
FORMATS: Mapping[str, str] = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
_COMPRESSED: Mapping[str, Any] = {".gz": gzip, ".bz2": bz2, ".xz": lzma}


def file_format(name: str) -> str | None:
    """The format that a file's name ends with (`json`, `csv`, `parquet`); None for other names."""
    path = Path(name)
    suffixes = path.suffixes[:-1] if path.suffix.lower() in _COMPRESSED else path.suffixes
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def read_file(field: str, path: Path, kind: str, name: str | None = None) -> Rows:
    """The rows of a file in that format, decompressed if its name (another `name` than the path's, for a downloaded file) says so.

    UserError for a file that is missing or not in the format.
    """
    try:
        with opener(Path(name or path))(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(field, str(path), "does not exist", "give the path of a JSONL, JSON, CSV or Parquet file") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(field, str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the file") from None
    if kind == "parquet":
        return ArrowRows(_parquet(data))
    try:
        text = data.decode("utf-8-sig")
        return JsonRows.from_text(text) if text.strip() and kind == "json" else CsvRows(text)
    except UnicodeDecodeError as error:
        raise UserError(field, str(path), f"is not UTF-8 (byte {error.start + 1})", "convert it, for example with iconv") from None
    except FormatError as error:
        raise UserError(field, str(path), str(error), "correct it there") from None


def _parquet(data: bytes) -> Any:
    """Read as it is: `datasets.load_dataset` would copy it into a cache that may not be writable."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    return datasets.Dataset(pq.ParquetFile(pa.BufferReader(data)).read())


def opener(path: Path) -> Callable[..., Any]:
    """What opens a file of that name, `open` or that of its compression."""
    return getattr(_COMPRESSED.get(path.suffix.lower()), "open", open)
