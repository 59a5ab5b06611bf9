"""The tokens that everybody who contacts a service of ours must have: Ray's, as an open Ray port lets anyone run code, and that of the web end."""

import contextlib
import os
import secrets
from pathlib import Path

from raysp.errors import UserError
from raysp.home import make_private, private_home, web_token_file

TOKEN = Path("~/.ray/auth_token").expanduser()
#: The fewest characters of a token that somebody has chosen.
LEAST_CHARACTERS = 16


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


def web_token() -> str:
    """The token of the web end: `RAYSP_TOKEN`, or the one in the home, made if there is none, which only its owner can read. UserError for one that is too short."""
    chosen = os.environ.get("RAYSP_TOKEN")
    if chosen is not None:
        if len(chosen) < LEAST_CHARACTERS or not chosen.isascii() or not chosen.isprintable() or " " in chosen:
            raise UserError(
                "RAYSP_TOKEN", None, f"is not a token of at least {LEAST_CHARACTERS} characters", "choose a random one, or unset it and one is made"
            )
        return chosen
    file = web_token_file()
    private_home()
    with contextlib.suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(32))
    make_private(file)
    return file.read_text(encoding="ascii").strip()


def _write() -> None:
    """Write a token, or keep others from reading the one that is there."""
    try:
        handle = os.open(TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        TOKEN.chmod(0o600)  # Ray makes it readable by everyone
        return
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))
