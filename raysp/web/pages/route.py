"""How pages answer while the service is busy or being restarted: with a page that looks again by itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from raysp.errors import UserError
from raysp.web.pages.rendering import render
from raysp.web.problems import RETRY_SECONDS, UNAVAILABLE


class PageRoute(APIRoute):
    """The route of a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except UserError as error:
                if error.field not in UNAVAILABLE:
                    raise
                response = render(request, "busy.html.j2", 503, problem=error.problem, seconds=RETRY_SECONDS)
                response.headers["retry-after"] = str(RETRY_SECONDS)
                return response

        return handled
