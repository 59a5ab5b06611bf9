"""Files of rows, by the end of their names: JSON, CSV and Parquet, plain or compressed. Files are read as they are, without a cache of another library."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysp.blobs import parse_blob, read_bytes, shown
from raysp.datasets.arrow_rows import ArrowRows
from raysp.datasets.csv_rows import CsvRows
from raysp.datasets.json_rows import JsonRows
from raysp.datasets.rows import FormatError, Rows
from raysp.errors import UserError

#: Formats by the end of a file's name, before that of its compression.
FORMATS: Mapping[str, str] = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
_COMPRESSED: Mapping[str, Any] = {".gz": gzip, ".bz2": bz2, ".xz": lzma}
#: The most bytes that the content of a reference may have once it is decompressed: what came over a network must not fill the memory of a node.
MOST_BYTES = 1 << 30
#: Where the content of a saved folder says what kind of files the folder was made of.
MADE_OF = b"raysp.made_of"


def file_format(name: str) -> str | None:
    """The format that a file's name ends with (`json`, `csv`, `parquet`); None for other names."""
    path = Path(name)
    suffixes = path.suffixes[:-1] if path.suffix.lower() in _COMPRESSED else path.suffixes
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def file_bytes(field: str, source: str) -> bytes:
    """The content of a file, given by its path or by a reference. UserError (about `field`) if it cannot be read."""
    try:
        return read_bytes(source)
    except FileNotFoundError:
        raise UserError(field, source, "does not exist", "give the path of a file, such as one in JSONL, JSON, CSV or Parquet") from None
    except (OSError, ValueError) as error:
        raise UserError(field, source, f"cannot be read ({getattr(error, 'strerror', None) or error})", "check the file") from None


def read_file(field: str, source: str, kind: str, name: str | None = None) -> Rows:
    """The rows of a file (a path or a reference) in that format, decompressed if its name (another `name` than its own, for a downloaded file) says so.

    UserError for a file that is missing or not in the format.
    """
    content = file_bytes(field, source)
    try:
        data = _decompressed(content, name or shown(source), None if parse_blob(source) is None else MOST_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(field, source, f"cannot be read ({error})", "check the file") from None
    if data is None:
        raise UserError(field, source, f"has more than {MOST_BYTES >> 20} MiB when it is decompressed", "give fewer rows, or put the data set on the hub")
    if kind == "parquet":
        return _parquet(data)
    try:
        text = data.decode("utf-8-sig")
        return JsonRows.from_text(text) if text.strip() and kind == "json" else CsvRows(text)
    except UnicodeDecodeError as error:
        raise UserError(field, source, f"is not UTF-8 (byte {error.start + 1})", "convert it, for example with iconv") from None
    except FormatError as error:
        raise UserError(field, source, str(error), "correct it there") from None


def _decompressed(data: bytes, name: str, most: int | None) -> bytes | None:
    """What a file of that name holds; None if that is more than the given number of bytes."""
    compression = _COMPRESSED.get(Path(name).suffix.lower())
    if compression is None:
        return data
    with compression.open(io.BytesIO(data), "rb") as file:
        found = file.read(-1 if most is None else most + 1)
    return None if most is not None and len(found) > most else found


def _parquet(data: bytes) -> ArrowRows:
    """Read as it is: `datasets.load_dataset` would copy it into a cache that may not be writable.

    Of what `datasets` writes beside the columns only the names of labels are used: it would open files that are named there.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(pa.BufferReader(data)).read()
    metadata = table.schema.metadata or {}
    rows = datasets.Dataset(table.replace_schema_metadata(None))
    return ArrowRows(rows, _label_names(metadata.get(b"huggingface", b"")), made_of_json=metadata.get(MADE_OF) == b"json")


def _label_names(metadata: bytes) -> dict[str, Sequence[str]]:
    """The names of the labels that columns hold as numbers, from what `datasets` writes into a schema."""
    try:
        features = json.loads(metadata)["info"]["features"]
        named = {column: feature["names"] for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in named.items() if isinstance(names, list) and all(isinstance(name, str) for name in names)}


def opener(path: Path) -> Callable[..., Any]:
    """What opens a file of that name, `open` or that of its compression."""
    return getattr(_COMPRESSED.get(path.suffix.lower()), "open", open)
