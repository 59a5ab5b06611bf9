"""The folders for caches and the default store. Knows nothing of what is kept in them."""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from raysp.errors import UserError

#: Most bytes of a path and of a name in it, on Linux.
MOST_PATH, MOST_NAME = 4095, 255


def home() -> Path:
    """The folder of the caches and of the default store: `$RAYSP_HOME`, or `~/.raysp`. It may not exist yet."""
    return Path(os.environ.get("RAYSP_HOME") or "~/.raysp").expanduser()


def service_file() -> Path:
    """The file that says which service `raysp up` made the one of this home: its address, its process, its store."""
    return home() / "service.json"


def web_token_file() -> Path:
    """The file with the token of the web end of this home's service."""
    return home() / "web_token"


def service() -> dict[str, Any] | None:
    """The service of this home as `service_file` has it, None if there is none. It may have died since."""
    try:
        found: Any = json.loads(service_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(found) if isinstance(found, dict) and "address" in found else None


def store_path(path: str | None = None) -> Path:
    """The path of the store: the given one, else `$RAYSP_STORE`, else that of the service of this home, else `raysp.duckdb` in `home()`."""
    named = path or os.environ.get("RAYSP_STORE") or (service() or {}).get("store")
    return local_path("store", named).absolute() if named else home() / "raysp.duckdb"


def local_path(field: str, text: str) -> Path:
    """The path that a text names, with `~` expanded. UserError (about `field`) for a text that no file system takes as a path, whether it exists or not."""
    encoded = text.encode("utf-8", "surrogatepass")
    if "\0" in text:
        raise UserError(field, text, "holds a NUL character", "give another path")
    if len(encoded) > MOST_PATH or any(len(part) > MOST_NAME for part in encoded.split(b"/")):
        raise UserError(field, text, "is too long for a path", "give another path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(field, text, "begins with the home folder of an unknown user", "write the path in full") from None


def private_home() -> Path:
    """`home()`, made if it is not there, and closed to others: prompts and answers are kept in it. A folder that others may write to, or somebody else's, is left as it is."""
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if not status.st_mode & 0o002 and folder.resolve() != Path.home().resolve():
        make_private(folder, 0o700)
    return folder


def make_private(path: Path, mode: int = 0o600) -> None:
    """Take from a file or folder of ours, if it exists and can be changed, the rights that are not in `mode`."""
    with contextlib.suppress(OSError):
        status = path.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o777 & ~mode:
            path.chmod(status.st_mode & 0o7777 & (mode | ~0o777))


def cache_folder(name: str) -> Path:
    """A folder of the home that can be written to, made if it is not there; one in the temporary folder if the home is read-only.

    UserError naming RAYSP_HOME if neither can be written to.
    """
    with contextlib.suppress(OSError):
        private_home()
        folder = home() / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    with contextlib.suppress(OSError):
        private = Path(tempfile.gettempdir()) / f"raysp-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        if _is_private(private):
            (private / name).mkdir(exist_ok=True)
            return private / name
    raise UserError("RAYSP_HOME", str(home()), "cannot be written to, nor can the temporary folder", "set RAYSP_HOME to a folder that you may write to")


def _is_private(folder: Path) -> bool:
    """Whether nobody else can have put anything into a folder: what is cached there is loaded later."""
    status = folder.lstat()
    return not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022
