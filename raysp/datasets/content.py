"""Questions with their content: the files that a spec names are read once, where it is asked, and travel as bytes to machines that do not have them.

A model is the exception: its folder must be there on every node under the same path, and is checked by its hash.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysp.blobs import Blob, parse_blob
from raysp.datasets.corpora import PREFIX
from raysp.datasets.files import MADE_OF, MOST_BYTES, file_bytes, file_format
from raysp.datasets.sources import HUB, explained, open_saved
from raysp.errors import UserError
from raysp.models.adapters import local_hash
from raysp.specs.lenses import Lens
from raysp.specs.run import RunSpec

Content = Mapping[str, bytes]
"""Bytes by their SHA-256 in hex."""


def portable(spec: RunSpec) -> tuple[RunSpec, Content]:
    """The spec with references in place of the files that it names, the bytes that they refer to, and the hash of a local model unless it states one.

    Names on the hub are marked as such, so that no folder of another machine is taken for them. A game built from the portable spec has the fingerprint of one
    built from the files. UserError for a file that cannot be read or has more than `MOST_BYTES`.
    """
    lens, content = portable_lens(spec.lens)
    explorer = spec.explorer.model_copy(update={field: _file(field, source, content) for field, source in spec.explorer.files.items()})
    examples = None if spec.examples is None else _data_set("examples", spec.examples, content)
    return spec.model_copy(update={"lens": lens, "explorer": explorer, "examples": examples}), content


def portable_lens(lens: Lens) -> tuple[Lens, dict[str, bytes]]:
    """As `portable`, of a lens alone."""
    content: dict[str, bytes] = {}
    changes: dict[str, Any] = {field: _data_set(field, source, content) for field, source in lens.data_sets.items()}
    changes |= {field: _file(field, source, content) for field, source in lens.files.items()}
    if lens.loads is not None and lens.loads.model_hash is None and (found := local_hash(lens.loads.model)) is not None:
        changes["model_hash"] = found
    return lens.model_copy(update=changes), content


def _data_set(field: str, source: str, content: dict[str, bytes]) -> str:
    """What stands for a data set: a reference to a file or a saved folder; the names of corpora and those on the hub stay."""
    if source.startswith((PREFIX, HUB)) or parse_blob(source) is not None:
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        return _kept(field, f"{path.absolute()}/", _folder_bytes(field, source), content)
    return f"{HUB}{source}" if file_format(source) is None else _file(field, source, content)


def _file(field: str, source: str, content: dict[str, bytes]) -> str:
    if parse_blob(source) is not None:
        return source
    return _kept(field, str(Path(source).expanduser().absolute()), file_bytes(field, source), content)


def _kept(field: str, path: str, data: bytes, content: dict[str, bytes]) -> str:
    if len(data) > MOST_BYTES:
        problem = f"has {len(data) >> 20:,} MiB, and at most {MOST_BYTES >> 20:,} travel with a question"
        raise UserError(field, path, problem, "give fewer rows, or put the data set on the hub")
    blob = Blob.of(path, data)
    content[blob.digest] = data
    return str(blob)


def _folder_bytes(field: str, source: str) -> bytes:
    """The rows of a saved folder as Parquet, with the names of its labels and what it was made of."""
    import pyarrow.parquet as pq

    with explained(field, source):
        saved = open_saved(field, source)
        table = saved.with_format("arrow")[:]
        metadata = {**(saved.features.arrow_schema.metadata or {}), MADE_OF: str(saved.info.builder_name).encode()}
        written = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), written)
        return written.getvalue()
