"""Connecting to Ray: a cluster that is there, or a local one started on demand."""

import contextlib
import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from raysp.errors import UserError

NAMESPACE = "raysp"
TOKEN = Path("~/.ray/auth_token")


@contextlib.contextmanager
def connected() -> Generator[bool]:
    """Ray for the length of a block; yields whether this process started it (and so stops it afterwards).

    Joins the cluster that `RAY_ADDRESS` names or that runs on this machine, and starts a local one otherwise.
    """
    if ray.is_initialized():
        yield False
        return
    # Clients of a cluster with tokens get 401 unless they say so themselves; a cluster without tokens ignores the mode.
    if TOKEN.expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    started = not _join()
    if started:
        _init(address="local")
        # A local Ray writes its token readable to all: make it the owner's alone.
        with contextlib.suppress(OSError):
            TOKEN.expanduser().chmod(0o600)
    try:
        yield started
    finally:
        ray.shutdown()


def _join() -> bool:
    """Join a running cluster, if there is one. UserError when one was named that does not answer."""
    try:
        _init(address="auto")
    except (ConnectionError, AuthenticationError) as error:
        named = os.environ.get("RAY_ADDRESS")
        if named in (None, "", "auto", "local"):
            return False
        problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError("RAY_ADDRESS", named, f"answers no connection ({problem})", "start the cluster, unset it, or pass --local") from None
    return True


def _init(**where: Any) -> None:
    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **where)
