"""Connecting to Ray: a cluster that is there, or a local one started on demand."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

from raysp.errors import UserError

NAMESPACE = "raysp"


@contextlib.contextmanager
def connected() -> Iterator[bool]:
    """Ray for the length of a block; yields whether this process started it (and so stops it afterwards).

    Joins the cluster that `RAY_ADDRESS` names or that runs on this machine, and starts a local one otherwise.
    """
    if ray.is_initialized():
        yield False
        return
    _prepare_environment()
    try:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, AuthenticationError) as error:
        address = os.environ.get("RAY_ADDRESS", "")
        raise UserError("RAY_ADDRESS", address, f"answers no connection ({_first_line(error)})", "start the cluster, unset it, or pass --local") from None
    _protect_token()
    started = _started_here()
    try:
        yield started
    finally:
        ray.shutdown()


def _started_here() -> bool:
    """Whether `ray.init` made a cluster of its own rather than join one: its address is then known to this process as the head's."""
    node = ray._private.worker._global_node  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]  Ray has no public way to tell
    return bool(node is not None and node.is_head())


def _prepare_environment() -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Clients of a cluster with tokens get 401 unless they say so themselves; a cluster without tokens ignores the mode.
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _protect_token() -> None:
    """A local `ray.init` writes the cluster's token readable to all: make it the owner's alone."""
    token = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):
        token.chmod(0o600)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
