"""What weights and tokenizers *are*, as hashes of their content: two folders with equal files are one model.

Hashing gigabytes takes seconds, so results are remembered by path, size and time of change in `home()/hashes.json`.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from raysp.home import home

#: Fields of a configuration that say who wrote it, or how it is held in memory.
OF_NO_EFFECT = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content in hex, read in pieces, remembered until the file changes."""
    resolved = path.resolve()
    status = resolved.stat()
    key, stamp = str(resolved), [status.st_size, status.st_mtime_ns]
    known = _read().get(key)
    if known and known[:2] == stamp:
        return str(known[2])
    with resolved.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(key, [*stamp, digest])
    return digest


def model_hash(weights: list[Path], config: Path) -> str:
    """One hash for a model: of its weights and of what its configuration does with them, whatever folder they lie in."""
    lines = sorted(f"{path.name} {file_hash(path)}" for path in weights)
    described = {name: value for name, value in json.loads(config.read_text(encoding="utf-8")).items() if name not in OF_NO_EFFECT}
    return hashlib.sha256("\n".join([*lines, json.dumps(described, sort_keys=True)]).encode()).hexdigest()


def _memory() -> Path:
    return home() / "hashes.json"


def _read() -> dict[str, list[int | str]]:
    try:
        return json.loads(_memory().read_text())
    except (OSError, ValueError):  # absent, unreadable or damaged: it is only a memory
        return {}


def _remember(key: str, entry: list[int | str]) -> None:
    # Two processes at once may lose one another's entry; the loser hashes again some day.
    with contextlib.suppress(OSError):
        home().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".hashes-", dir=home())
        with os.fdopen(handle, "w") as file:
            json.dump({**_read(), key: entry}, file)
        Path(name).replace(_memory())
