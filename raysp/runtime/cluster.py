"""Connecting to Ray: a cluster that is there, or a local one started on demand."""

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


@contextlib.contextmanager
def connected() -> Generator[bool]:
    """Ray for the length of a block; yields whether this process started it (and so stops it afterwards).

    Joins the cluster that `RAY_ADDRESS` names or that runs on this machine, and starts a local one otherwise.
    """
    if ray.is_initialized():
        yield False
        return
    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        named = os.environ.get("RAY_ADDRESS")
        raise UserError("RAY_ADDRESS", named, f"answers no connection ({problem})", "start the cluster, unset it, or pass --local") from None
    # A local Ray writes its token readable to all: make it the owner's alone.
    with contextlib.suppress(OSError):
        TOKEN.chmod(0o600)
    try:
        yield _started_here()
    finally:
        ray.shutdown()


def _started_here() -> bool:
    """Whether `ray.init` made a cluster of its own rather than join one. Ray has no public way to tell."""
    from ray._private import worker

    node: Any = worker._global_node  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return bool(node.is_head())
