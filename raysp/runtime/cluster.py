"""Connecting to Ray: to a cluster that exists, or to a local one started on demand."""

import contextlib
import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from raysp.errors import UserError
from raysp.runtime.address import REMEDY, wanted_address
from raysp.runtime.token import require_token

NAMESPACE = "raysp"
#: How long a client waits for an answer that takes no work. Ray declares a node dead after about 64 s.
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Connection:
    """How this process is connected: to a Ray of its `own`, which ends with the block, or to the cluster at `address` as it was named."""

    own: bool
    address: str


@contextlib.contextmanager
def connected(address: str | None = None) -> Generator[Connection]:
    """Connect to Ray within the block.

    Joins the cluster at `address`, or else the one that `wanted_address` finds, and otherwise starts a local one. UserError if a cluster cannot be joined.
    """
    if ray.is_initialized():
        yield Connection(own=False, address=ray.get_runtime_context().gcs_address)
        return
    require_token()
    joined = address or wanted_address()
    try:
        ray.init(address=joined or "local", namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError, RuntimeError) as error:
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        field = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "cluster"
        raise UserError(field, joined, f"refuses the connection ({problem})", REMEDY) from None
    try:
        with _messages_on_stderr():
            yield Connection(own=joined is None, address=joined or ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()
        forget_actor_classes()


def forget_actor_classes() -> None:
    """Empty Ray's cache of actor classes, which outlives the interpreter: DuckDB's classes, kept by those in it, complain on stderr of being leaked."""
    with contextlib.suppress(ImportError, AttributeError):  # a Ray without this cache: no answer is lost for a tidy end
        from ray._private import async_compat

        async_compat.has_async_methods.cache_clear()


@contextlib.contextmanager
def _messages_on_stderr() -> Generator[None]:
    """Print on stderr what Ray has to say about nodes and processes that die. It prints that on stdout, which is for answers."""
    from ray._private import worker

    printed: Any = worker.print_to_stdstream

    def told(data: Any, ignore_prefix: bool) -> None:
        printed({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = told
    try:
        yield
    finally:
        worker.print_to_stdstream = printed
