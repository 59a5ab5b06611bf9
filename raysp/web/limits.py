"""How large a request may be. One that is larger is refused before it is read."""

from collections.abc import MutableMapping
from typing import Any

from raysp.web.access import Application, Receive, Scope, Send
from raysp.web.problems import problem_response

#: Bytes of a request; those that carry the files of a question may be larger.
MOST_BYTES, MOST_WITH_FILES = 1 << 20, 64 << 20
WITH_FILES = ("/api/v1/runs", "/api/v1/plan", "/api/v1/check")


class TooLarge(Exception):  # noqa: N818  never leaves this module
    """More has arrived than a request may have."""


class BodyLimit:
    """ASGI middleware: answers 413 to requests that are too large, whether they say so or not."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = MOST_WITH_FILES if scope["path"] in WITH_FILES else MOST_BYTES
        refused = problem_response(413, f"body: is larger than {most >> 20} MiB; send less at once")
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not stated.isdigit() or int(stated) > most:
            await refused(scope, receive, send)
            return
        received, began = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise TooLarge
            return message

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except TooLarge:
            if not began:
                await refused(scope, receive, send)
