"""A set of examples becomes one lens each: rows of a data set laid over a feature lens."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raysp.datasets.corpora import PREFIX, read_corpus
from raysp.errors import UserError
from raysp.specs.lenses import FeatureLens

# A row may set these fields of the lens; any other column is left alone.
COLUMNS = ("prompt", "question", "target", "foil", "template", "spans")
READERS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}


def read_examples(source: str, lens: FeatureLens, limit: int | None = None) -> list[tuple[str, FeatureLens]]:
    """A label and a lens for each row of a JSONL, CSV or Parquet file or a hub data set (`name`, or `name:split`).

    UserError when it cannot be read, has no prompt column, is empty, or a row does not make a lens (with the row's number).
    """
    rows = read_rows("examples", source, limit)
    found: list[tuple[str, FeatureLens]] = []
    for number, row in enumerate(rows, 1):
        fields = {name: row[name] for name in COLUMNS if row.get(name) is not None}
        try:
            made = FeatureLens.model_validate({**lens.model_dump(), **fields})
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"examples row {number}, {first['loc'][0]}", first["input"], "is not valid", str(first["msg"])) from None
        found.append((f"example {number}", made))
    return found


def read_rows(field: str, source: str, limit: int | None = None, needed: str = "prompt") -> list[Mapping[str, Any]]:
    """The rows of a file or data set as `read_examples` takes them; UserError (about `field`) when it cannot be read, is empty or lacks a column."""
    rows: list[Mapping[str, Any]] = list(islice(read_data(field, source), limit))
    if READERS.get(Path(source).suffix.lower()) == "csv":  # which has no other way to leave a cell out
        rows = [{name: value or None for name, value in row.items()} for row in rows]
    if needed not in rows[0]:
        raise UserError(field, source, f"has no column {needed}", f"rename one of {', '.join(rows[0])}")
    return rows


def read_data(field: str, source: str) -> Any:
    """The rows as a `datasets.Dataset`: of a JSONL, CSV or Parquet file, a saved folder, a hub name (`hf:` may stand before it, `:SPLIT` or `:CONFIG:SPLIT` behind) or an installed corpus.

    UserError (about `field`) when it cannot be read or is empty.
    """
    if Path(source).suffix.lower() in READERS and not Path(source).expanduser().exists():
        raise UserError(field, source, "is no file", "give the path of a JSONL, CSV or Parquet file")
    if Path(source).suffix.lower() in READERS and not Path(source).expanduser().stat().st_size:
        raise UserError(field, source, "has no rows", "give at least one")
    try:
        data = _data(field, source)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  the library raises what its many back ends raise
        told = error.__cause__ or error  # what is wrong with a file stands in the cause
        problem = (str(told).strip().splitlines() or [type(told).__name__])[0]
        raise UserError(field, source, f"cannot be read ({problem})", "give a JSONL, CSV or Parquet file, a saved folder or a hub name") from None
    if not len(data):
        raise UserError(field, source, "has no rows", "give at least one")
    return data


def _data(field: str, source: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is in what it raises
    if source.startswith(PREFIX):
        return read_corpus(field, source)
    path = Path(source).expanduser()
    if (kind := READERS.get(path.suffix.lower())) is not None:
        return datasets.load_dataset(kind, data_files=str(path), split="train", **(_as_written(path) if kind == "csv" else {}))
    if path.is_dir():
        saved: Any = datasets.load_from_disk(str(path))
        return _only_split(field, source, saved) if isinstance(saved, datasets.DatasetDict) else saved
    name, *rest = source.removeprefix("hf:").split(":")
    if len(rest) > 2:
        raise UserError(field, source, "has more parts than a hub name, a configuration and a split", "write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    return datasets.load_dataset(name, *rest[:-1], split=(rest[-1] if rest else "") or "train")


def _as_written(path: Path) -> dict[str, Any]:
    """How to read a table of text, which has no numbers and no missing values: 007, 1.0 and None stay what was written."""
    import csv

    import datasets

    with path.open(newline="", encoding="utf-8-sig") as file:
        columns = next(csv.reader(file), [])
    return {"features": datasets.Features({name: datasets.Value("string") for name in columns}), "keep_default_na": False}


def _only_split(field: str, source: str, splits: Mapping[Any, Any]) -> Any:
    if "train" in splits:
        return splits["train"]
    raise UserError(field, source, f"holds the splits {', '.join(splits)}, and none is train", "give the folder of one of them")
