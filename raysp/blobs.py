"""Files by their content: ``blob:SHA256:PATH`` stands for a file whose bytes travel beside a question to machines where the path does not exist.

Readers take a path or such a reference, and `read_bytes` opens either. Messages show the path. Knows nothing of formats, stores or networks.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BlobStore(Protocol):
    """Whatever keeps content by its hash."""

    def blob(self, digest: str) -> bytes | None:
        """The content with this SHA-256 (in hex), None if it is not stored."""
        ...


Keeper = TypeVar("Keeper", bound=BlobStore)
Lookup = Callable[[str], bytes | None]
"""The bytes with a SHA-256 (in hex), None if they are not known."""

_REFERENCE = re.compile("blob:([0-9a-f]{64}):(.*)", re.DOTALL)
_lookups: ContextVar[tuple[Lookup, ...]] = ContextVar("lookups", default=())


class MissingBlobError(OSError):
    """The content that a reference stands for is not known here, or is not what its hash says."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A reference to a file's content: its SHA-256 in hex, and the path that the file had where it was read."""

    digest: str
    path: str

    @classmethod
    def of(cls, path: str, content: bytes) -> "Blob":
        """The reference to this content of a file."""
        return cls(digest(content), path)

    def __str__(self) -> str:
        return f"blob:{self.digest}:{self.path}"


def digest(content: bytes) -> str:
    """The SHA-256 of the content in hex."""
    return hashlib.sha256(content).hexdigest()


def parse_blob(source: str) -> Blob | None:
    """The reference that a text is, None for any other text."""
    found = _REFERENCE.fullmatch(source)
    return Blob(found[1], found[2]) if found else None


def shown(source: str) -> str:
    """What a message shows of a source: the path that a reference stands for, any other text as it is."""
    blob = parse_blob(source)
    return source if blob is None else blob.path


@contextmanager
def blobs_from(lookup: Lookup) -> Generator[None]:
    """Within the block, `read_bytes` finds what the lookup knows, besides what the blocks around it do. The bytes are not kept."""
    token = _lookups.set((*_lookups.get(), lookup))
    try:
        yield
    finally:
        _lookups.reset(token)


def with_stored_blobs(function: Callable[Concatenate[Keeper, P], T]) -> Callable[Concatenate[Keeper, P], T]:
    """The function, with the content known to its store (the first argument) while it runs."""

    @functools.wraps(function)
    def wrapped(store: Keeper, *args: P.args, **kwargs: P.kwargs) -> T:
        with blobs_from(store.blob):
            return function(store, *args, **kwargs)

    return wrapped


def read_bytes(source: str) -> bytes:
    """The content of a file, given by its path or by a reference. Raises OSError as `open` does, or MissingBlobError."""
    blob = parse_blob(source)
    if blob is None:
        return Path(source).expanduser().read_bytes()
    for lookup in reversed(_lookups.get()):
        content = lookup(blob.digest)
        if content is not None:
            if digest(content) != blob.digest:
                raise MissingBlobError("what is stored as its content has another hash")
            return content
    raise MissingBlobError("its content did not come with the question")
