"""Where a service is and how it is told who asks: its URL and its token, from arguments, the environment and the home. Contacts nobody."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from raysp.errors import UserError
from raysp.home import web_token_file

#: The environment variables that name a service and its token.
SERVER, TOKEN = "RAYSP_SERVER", "RAYSP_TOKEN"
#: Where every service has its REST interface.
API = "/api/v1"
_GET_TOKEN = "`raysp token` prints it on the service's machine"  # noqa: S105  a remedy


@dataclass(frozen=True)
class Address:
    """A service: its URL without a slash at the end, the token, and what the token is called in messages."""

    url: str
    token: str = field(repr=False)
    token_name: str = "token"  # noqa: S105  a name

    @classmethod
    def of(cls, url: str | None = None, token: str | None = None) -> "Address":
        """The service at `url`, by default `RAYSP_SERVER`, with `token`, by default `RAYSP_TOKEN`, otherwise that of the home. UserError for what is missing or malformed."""
        field, given = ("server", url) if url is not None else (SERVER, os.environ.get(SERVER) or None)
        if given is None:
            raise UserError("server", None, "is missing", f"give the URL of a service, such as http://127.0.0.1:8270, or set {SERVER}")
        return cls(checked_url(given, field), *_token(token))


def checked_url(url: str, field: str) -> str:
    """The URL without what is not part of a service's address. UserError about `field` for one that is not HTTP, names no host, or holds a password."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise UserError(field, url, f"is not a URL ({error})", "write http://HOST:PORT or https://HOST") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(field, url, "is not the URL of a service", "write http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.query or parts.fragment:
        raise UserError(field, url, "holds more than an address", f"write http://HOST:PORT alone; the token belongs into {TOKEN}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/').removesuffix(API)}"


def _token(given: str | None) -> tuple[str, str]:
    """The token and its name."""
    if given is not None:
        return _checked(given, "token"), "token"
    if chosen := os.environ.get(TOKEN):
        return _checked(chosen, TOKEN), TOKEN
    try:
        kept = web_token_file().read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise UserError("token", None, "is missing", f"set {TOKEN}; {_GET_TOKEN}") from None
    return _checked(kept, str(web_token_file())), str(web_token_file())


def _checked(token: str, name: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(name, None, "is not a token", _GET_TOKEN)
    return token
