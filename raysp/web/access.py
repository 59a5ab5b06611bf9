"""Who may ask: the token, the session of a browser that logged in with it, and the headers that keep pages of others out.

Everything is refused but `OPEN`, so that a route that is added is closed.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from raysp.errors import UserError
from raysp.web.problems import problem_response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: What everybody may ask for: whether the service is there, and the page on which to log in with what it is made of.
OPEN = ("/api/v1/health", "/login")
STATIC = "/static/"
COOKIE = "raysp_session"
CSRF = "x-csrf-token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_SECONDS = 30 * 86_400
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Sessions:
    """Sessions of browsers, signed with a key that is derived from the token: they survive a restart, and end when the token changes."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._key = hashlib.sha256(b"raysp session\0" + token.encode()).digest()

    def is_token(self, given: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def new(self, now: float | None = None) -> str:
        """The value of a new session's cookie."""
        body = f"{int((now or time.time()) + SESSION_SECONDS)}.{secrets.token_hex(16)}"
        return f"{body}.{self._sign('session', body)}"

    def is_valid(self, cookie: str) -> bool:
        """Whether a cookie is one of `new` that has not expired."""
        body, _, signature = cookie.rpartition(".")
        expires = body.partition(".")[0]
        return hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign("session", body).encode()) and int(expires) > time.time()

    def csrf(self, cookie: str) -> str:
        """What a page of this session sends along with whatever changes something; pages of others cannot read it."""
        return self._sign("csrf", cookie)

    def _sign(self, what: str, text: str) -> str:
        return hmac.new(self._key, f"{what}\0{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class Access:
    """ASGI middleware: refuses requests without the token or a session, and sets the security headers of every response.

    A page finds what it has to send as `X-CSRF-Token` in `request.state.csrf`, which is empty for requests with the token.
    """

    def __init__(self, app: Application, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                more = HEADERS if scope["path"].startswith(STATIC) else {**HEADERS, "cache-control": "no-store"}
                message["headers"] = [*message["headers"], *((name.encode(), text.encode()) for name, text in more.items() if name.encode() not in given)]
            await send(message)

        refused = self._check(scope)
        await (refused or self._app)(scope, receive, guarded)

    def _check(self, scope: Scope) -> Any:
        """None for a request that is allowed, otherwise the response that refuses it."""
        state = scope.setdefault("state", {})
        state["csrf"] = ""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        cookie = _cookie(headers.get("cookie", ""))
        in_session = bool(cookie) and self._sessions.is_valid(cookie)
        if in_session:
            state["csrf"] = self._sessions.csrf(cookie)
        if scope["path"] in OPEN or scope["path"].startswith(STATIC):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if given:
            return None if kind.lower() == "bearer" and self._sessions.is_token(given.strip()) else _unauthorised("is wrong")
        if not in_session:
            return _unauthorised("is missing") if _wants_data(scope, headers) else _to_login(scope)
        if scope["method"] in SAFE:
            return None
        if not same_origin(headers) or not hmac.compare_digest(headers.get(CSRF, "").encode(), state["csrf"].encode()):
            return problem_response(403, UserError(CSRF, None, "is missing or wrong: the request does not come from a page of this service", "reload the page"))
        return None


def same_origin(headers: MutableMapping[str, str] | dict[str, str]) -> bool:
    """Whether a request comes from a page of the host that it goes to, or from no page."""
    origin = headers.get("origin")
    return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none") and (origin is None or urlsplit(origin).netloc == headers.get("host"))


def local_path(target: str) -> str:
    """The path to go to after logging in, if it is one of this service; otherwise that of the first page."""
    parts = urlsplit(target)
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and not any(char < " " or char == "\\" for char in target)
    return target if plain and not parts.scheme and not parts.netloc else "/"


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _wants_data(scope: Scope, headers: dict[str, str]) -> bool:
    return scope["path"].startswith("/api/") or scope["method"] not in SAFE or "text/html" not in headers.get("accept", "")


def _unauthorised(problem: str) -> Any:
    error = UserError("token", None, problem, "send `Authorization: Bearer TOKEN`; `raysp token` prints it on the service's machine")
    return problem_response(401, error, **{"WWW-Authenticate": "Bearer"})


def _to_login(scope: Scope) -> Any:
    from starlette.responses import RedirectResponse

    query = scope["query_string"].decode("latin-1")
    target = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)
