"""The token that everybody who contacts a Ray cluster of ours must have: an open Ray port lets anyone run code."""

import contextlib
import os
import secrets
from pathlib import Path

TOKEN = Path("~/.ray/auth_token").expanduser()


def require_token() -> None:
    """Turn tokens on for this process and those that it starts, and make a token that only its owner can read if there is none.

    A cluster without tokens ignores them; one with tokens refuses whoever has not turned them on. `RAY_AUTH_MODE` has the last word.
    """
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        with contextlib.suppress(OSError):
            TOKEN.parent.mkdir(parents=True, exist_ok=True)
            _write()
        if not TOKEN.exists():
            return  # a home that cannot be written to: Ray would refuse to start
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def _write() -> None:
    """Write a token, or keep others from reading the one that is there."""
    try:
        handle = os.open(TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        TOKEN.chmod(0o600)  # Ray makes it readable by everyone
        return
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))
