"""Where rows come from: files (plain or compressed), saved folders, hub names and installed corpora; and where chosen rows are written.

The one reader of data sets: prompts, examples, queries, references and training sets all pass through here.
"""

import errno
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysp.blobs import Blob, parse_blob
from raysp.datasets.arrow_rows import ArrowRows
from raysp.datasets.corpora import PREFIX, read_corpus
from raysp.datasets.csv_rows import CsvRows
from raysp.datasets.files import file_format, opener, read_file
from raysp.datasets.json_rows import JsonRows
from raysp.datasets.rows import JoinedRows, Rows
from raysp.errors import UserError

#: Before the name of a data set on the hub.
HUB = "hf:"
_KINDS = "give a JSONL, JSON, CSV or Parquet file (.gz, .bz2 and .xz are read too), a saved folder or a hub name"


def open_rows(field: str, source: str) -> Rows:
    """The rows of a file, a saved folder, a hub name (`hf:NAME`, `hf:NAME:SPLIT`, `hf:NAME:CONFIG:SPLIT`; `hf:` may be left out) or an installed corpus.

    UserError (about `field`) if it cannot be read or has no rows.
    """
    with explained(field, source):
        rows = _opened(field, source)
    if not len(rows):
        raise UserError(field, source, "has no rows", "give at least one")
    return rows


@contextmanager
def explained(field: str, source: str) -> Generator[None]:
    """Within the block, what libraries raise while they read a data set becomes a UserError (about `field`)."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  the libraries raise what their many back ends raise
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise UserError(field, source, f"cannot be cached ({error.strerror}: {error.filename})", "set HF_HOME to a folder that you may write to") from None
        told = error.__cause__ or error  # what is wrong with a file stands in the cause
        problem = (str(told).strip().splitlines() or [type(told).__name__])[0]
        raise UserError(field, source, f"cannot be read ({problem})", _KINDS) from None


def open_prompts(field: str, source: str) -> Rows:
    """The rows of a prompt set; UserError as `open_rows`, or if they have no column `prompt`."""
    rows = open_rows(field, source)
    if "prompt" not in rows.names:
        raise UserError(field, source, "has no column prompt", f"rename one of its columns: {', '.join(filter(None, rows.names))}")
    return rows


def _opened(field: str, source: str) -> Rows:
    if source.startswith(PREFIX):
        return JsonRows.from_rows(read_corpus(field, source))
    if (blob := parse_blob(source)) is not None:
        return read_file(field, source, _content_format(blob))
    if source.startswith(HUB):
        return _from_hub(field, source)
    path = Path(source).expanduser()
    if path.is_dir():
        return ArrowRows(open_saved(field, source))
    if (kind := file_format(source)) is not None:
        return read_file(field, source, kind)
    return _from_hub(field, source)


def _content_format(blob: Blob) -> str:
    """The format of a data set's content; that of a saved folder, whose path ends with a slash, is Parquet."""
    return (None if blob.path.endswith("/") else file_format(blob.path)) or "parquet"


def _quiet_datasets() -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is in what it raises
    return datasets


def open_saved(field: str, source: str) -> Any:
    """The `datasets.Dataset` in a saved folder, the split train of several. UserError if there is no such split, and what `datasets` raises."""
    datasets = _quiet_datasets()
    saved: Any = datasets.load_from_disk(str(Path(source).expanduser()))
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if "train" in saved:
        return saved["train"]
    raise UserError(field, source, f"has the splits {', '.join(saved)}, and none is train", "give the folder of one of them")


def _from_hub(field: str, source: str) -> Rows:
    name = source.removeprefix(HUB).split(":")[0]
    # `datasets` would read the folder, or all files of a format in the folder of this process, which may be another person's.
    if name in _quiet_datasets().packaged_modules._PACKAGED_DATASETS_MODULES or Path(name).exists():  # noqa: SLF001
        raise UserError(field, source, "names a local folder or a format, not a data set on the hub", "give the path of a file or folder without hf:")
    return read_repository(field, source)


def read_repository(field: str, source: str) -> Rows:
    """The rows of a name as `datasets` understands it: of a repository on the hub, or of a folder with the same files."""
    datasets = _quiet_datasets()
    name, *rest = source.removeprefix(HUB).split(":")
    if len(rest) > 2:
        raise UserError(field, source, "has more parts than a hub name, a configuration and a split", "write hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    split = (rest[-1] if rest else "") or "train"
    builder = datasets.load_dataset_builder(name, *rest[:-1])
    if _infers_types(builder) and split in builder.config.data_files:
        return _read_as_written(field, datasets, builder, split)
    return ArrowRows(datasets.load_dataset(name, *rest[:-1], split=split))


def _infers_types(builder: Any) -> bool:
    """Whether `datasets` would make up the types of columns from what text files look like: dates of strings, 7 of 007."""
    config = builder.config
    usual = (builder.name == "json" and config.field is None) or (builder.name == "csv" and config.sep == "," and config.names is None)
    return usual and builder.info.features is None


def _read_as_written(field: str, datasets: Any, builder: Any, split: str) -> Rows:
    """The text files of a split, downloaded by `datasets` and read by us."""
    names = [str(name) for name in builder.config.data_files[split]]
    downloads = datasets.DownloadManager(dataset_name=builder.dataset_name, data_dir=builder.config.data_dir, download_config=datasets.DownloadConfig())
    paths = downloads.download(names)
    return JoinedRows([read_file(field, str(path), builder.name, name) for path, name in zip(paths, names, strict=True)])


def write_rows(source: str, numbers: Sequence[int], output: Path) -> None:
    """Write rows of a data set (numbers from 0) exactly as they were read: as JSON lines, or in the format of the source if `output` is named like it.

    A name that ends with .gz, .bz2 or .xz is compressed. OSError if it cannot be written.
    """
    rows = open_rows("train", source)
    kind = file_format(str(output)) or "json"
    if isinstance(rows, ArrowRows) and kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(rows.table(numbers), output)
        return
    lines = rows.csv_lines(numbers) if isinstance(rows, CsvRows) and kind == "csv" else rows.json_lines(numbers)
    with opener(output)(output, "wb") as file:
        file.writelines(line + b"\n" for line in lines)


def check_output_format(source: str, output: Path) -> None:
    """UserError if rows of the source cannot be written in the format that the output is named after."""
    kind = file_format(str(output))
    if kind in ("csv", "parquet") and kind != file_format(source):
        raise UserError("output", str(output), f"is named like a {kind} file, and the rows come from another format", "name a .jsonl file")
