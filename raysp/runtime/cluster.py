"""Connecting to Ray: to a cluster that exists, or to a local one started on demand."""

import contextlib
import logging
import os
from collections.abc import Generator
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from raysp.errors import UserError
from raysp.runtime import TOKEN

NAMESPACE = "raysp"
#: How long a client waits for an answer that takes no work. Ray declares a node dead after about 64 s.
ANSWER_SECONDS = 120.0


@contextlib.contextmanager
def connected() -> Generator[bool]:
    """Connect to Ray within the block; yields whether this process started it, in which case it also stops it.

    Joins the cluster that `RAY_ADDRESS` names or that runs on this machine, and otherwise starts a local one.
    """
    if ray.is_initialized():
        yield False
        return
    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        address = os.environ.get("RAY_ADDRESS")
        raise UserError("RAY_ADDRESS", address, f"refuses the connection ({problem})", "start the cluster, unset RAY_ADDRESS, or pass --local") from None
    # Ray writes the token of a local cluster readable by everyone.
    with contextlib.suppress(OSError):
        TOKEN.chmod(0o600)
    try:
        yield _started_here()
    finally:
        ray.shutdown()
        _forget_actor_classes()


def _forget_actor_classes() -> None:
    """Empty Ray's cache of actor classes, which outlives the interpreter: DuckDB's classes, kept by those in it, complain on stderr of being leaked."""
    with contextlib.suppress(ImportError, AttributeError):  # a Ray without this cache: no answer is lost for a tidy end
        from ray._private import async_compat

        async_compat.has_async_methods.cache_clear()


def _started_here() -> bool:
    """Whether `ray.init` started a cluster rather than joined one. Ray has no public way to tell."""
    from ray._private import worker

    node: Any = worker._global_node  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return bool(node.is_head())
