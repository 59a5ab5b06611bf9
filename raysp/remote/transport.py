"""Requests to a service: each is repeated within a bounded time when its connection is lost or the service is being restarted. All of them may be asked twice."""

import io
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyarrow as pa

from raysp.remote.address import API, Address
from raysp.remote.problems import error_of, is_tls, stranger, unreachable
from raysp.store.packing import Table

#: How long a request waits for a connection, and for its answer unless it says otherwise.
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
#: How long a request that fails is repeated: a web end that died is back after a second or two, a head node after ten.
PATIENCE_SECONDS = 60.0
#: The pause before it is repeated, which doubles up to the longest.
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
#: Answers of a service, or of a proxy before it, that is being restarted.
_BUSY = frozenset({502, 503, 504})
#: Hosts that no proxy stands before, whatever the environment says.
_OWN = ("127.0.0.1", "localhost", "[::1]")
ARROW = "application/vnd.apache.arrow.stream"
#: Rows of a page of a table.
PAGE_ROWS = 100_000


class Transport:
    """A service at an address. For any number of threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._http = httpx.Client(
            base_url=address.url + API,
            headers={"authorization": f"Bearer {address.token}"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            mounts={f"all://{host}": None for host in _OWN},
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
        allowed: Collection[int] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> httpx.Response:
        """The answer to a request with a JSON body. Raises the error that it stands for, unless its status is `allowed`.

        A request that fails is repeated for `patience` seconds from its first failure on.
        """
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        failed_at, pause = None, PAUSE_SECONDS
        while True:
            failure: Exception
            try:
                response = self._http.request(method, path, json=body, params=query, headers=headers, timeout=timeout)
            except httpx.TransportError as error:
                failure = unreachable(self.address, error)
                if is_tls(error):
                    raise failure from None
            else:
                if response.status_code not in _BUSY or response.status_code in allowed:
                    return self._checked(response, allowed)
                failure = error_of(self.address, response)
            failed_at = failed_at or time.monotonic()
            if time.monotonic() + pause - failed_at > patience:
                raise failure from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _checked(self, response: httpx.Response, allowed: Collection[int]) -> httpx.Response:
        if response.is_success or response.status_code in allowed:
            return response
        raise error_of(self.address, response)

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The answer to a request, as the plain data of its JSON."""
        response = self.ask(method, path, **options)
        try:
            return response.json()
        except ValueError:
            raise stranger(self.address, response) from None

    def table(self, path: str, *, allowed: Collection[int] = (), **query: Any) -> Table | None:
        """All rows of a table, page after page. None if the answer has an `allowed` status."""
        pages: list[Table] = []
        offset: int | None = 0
        while offset is not None:
            response = self.ask("GET", path, query={"format": "arrow", "limit": PAGE_ROWS, **query, "offset": offset}, allowed=allowed)
            if not response.is_success:
                return None
            pages.append(self.arrow(response))
            offset = following_offset(response)
        return pages[0] if len(pages) == 1 else pa.concat_tables(pages)

    def arrow(self, response: httpx.Response) -> Table:
        """The table that a response holds."""
        try:
            return pa.ipc.open_stream(io.BytesIO(response.content)).read_all()
        except pa.ArrowInvalid:
            raise stranger(self.address, response) from None

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence: float) -> Generator[httpx.Response]:
        """A response that is read as it comes; httpx.TransportError if it is lost, or after `silence` seconds without a byte."""
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS)) as response:
            yield response


def following_offset(response: httpx.Response) -> int | None:
    """Where the page after this one begins, None for the last."""
    link = response.links.get("next", {}).get("url")
    return None if link is None else int(parse_qs(urlsplit(link).query)["offset"][0])
