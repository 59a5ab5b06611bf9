"""Write a file that a person named: whole or not at all, and nothing but a regular file is replaced."""

import os
import stat
import tempfile
from pathlib import Path

from raysp.errors import UserError
from raysp.home import local_path


def write_output(field: str, path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` and return it. Raises UserError about `field` if it cannot be written.

    A regular file is replaced in one step and keeps its permissions, through symbolic links if there are any. A FIFO or a device, such as /dev/stdout, is written to.
    """
    named = local_path(field, str(path))
    try:
        target = Path(os.path.realpath(named)) if named.is_symlink() else named
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            _write_into(named, content)
        else:
            _replace(target, content)
    except OSError as error:
        raise UserError(field, str(path), f"cannot be written ({error.strerror})", "choose a file in a folder that you can write to") from None
    return named


def make_folder(field: str, folder: Path) -> None:
    """Make a folder, with those above it, if it is not there. Raises UserError about `field` if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(field, str(folder), f"cannot be written ({error.strerror})", "choose a file in a folder that you can write to") from None


def _write_into(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)


def _replace(path: Path, content: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".draft")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
