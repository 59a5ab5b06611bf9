"""Where raysp keeps what it makes once and uses often. Knows only the folder, nothing of what lies in it."""

import os
from pathlib import Path


def home() -> Path:
    """The folder of caches and of the default store: `$RAYSP_HOME`, or `~/.raysp`. It need not exist yet."""
    return Path(os.environ.get("RAYSP_HOME") or "~/.raysp").expanduser()


def store_path(path: str | None = None) -> Path:
    """The store to use: the one named, or `$RAYSP_STORE`, or `raysp.duckdb` in the home."""
    named = path or os.environ.get("RAYSP_STORE")
    return Path(named).expanduser().absolute() if named else home() / "raysp.duckdb"
