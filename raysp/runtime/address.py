"""Addresses of Ray clusters: which one is meant, and whether a head answers there. Ray itself would wait for a quarter of an hour where nothing does."""

import os
import re
import socket
from pathlib import Path

from raysp.errors import UserError
from raysp.home import service, store_path

#: How long a head may take to answer.
PROBE_SECONDS = 10.0
#: What gRPC clients begin with (RFC 9113, sections 3.4 and 6.5): the preface of HTTP/2 and an empty frame of settings. A server answers with its settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
FRAME, SETTINGS = 9, 4
REMEDY = "start the cluster, unset RAY_ADDRESS, or pass --local"


def wanted_address() -> str | None:
    """The cluster to join: that of `RAY_ADDRESS`, else the service of this home, else the last one that `ray start` began on this machine. None if none answers.

    Raises UserError for a `RAY_ADDRESS` that is malformed, and if nothing or something other than a Ray head answers there.
    """
    named = os.environ.get("RAY_ADDRESS")
    if named == "local":
        return None
    if named and named != "auto":
        return checked_address(named, "RAY_ADDRESS", REMEDY)
    known = [str(served["address"])] if (served := service()) is not None else []
    found = next((address for address in (*known, *_started_here()) if answers(address)), None)
    if named and found is None:
        raise UserError("RAY_ADDRESS", named, "finds no Ray on this machine", REMEDY)
    return found


def store_is_here(store: str | None) -> bool:
    """Whether a store (None: the default one) is a file of this machine. The default store of a service on another machine is there, whatever there is here."""
    named = store or os.environ.get("RAYSP_STORE")
    return store_path(named).exists() and (named is not None or not joins_elsewhere())


def joins_elsewhere() -> bool:
    """Whether the cluster that is named, by `RAY_ADDRESS` or as the service of this home, is on another machine. Contacts nobody there."""
    named = os.environ.get("RAY_ADDRESS") or (service() or {}).get("address")
    if named is None or ":" not in named or "://" in named:
        return False
    host, _ = _split(str(named), "RAY_ADDRESS")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(place)  # only addresses of this machine can be bound to
    except OSError:
        return True
    return False


def _started_here() -> list[str]:
    """The address that `ray start` leaves for others on this machine. It stays there when that Ray is killed."""
    left = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"  # noqa: S108  Ray's own choice
    try:
        return [left.read_text(encoding="utf-8").strip()]
    except (OSError, UnicodeDecodeError):
        return []


def checked_address(address: str, field: str, remedy: str) -> str:
    """The address if a Ray head answers there. UserError naming `field` otherwise."""
    if "://" in address:
        scheme = address.partition("://")[0]
        problem = {"ray": "is an address for Ray Client", "http": "is the address of a dashboard", "https": "is the address of a dashboard"}
        where = "on a node of the cluster write HOST:PORT of its head, such as 10.0.0.5:6379; elsewhere send the command with `ray job submit`"
        raise UserError(field, address, problem.get(scheme, "is not an address"), where)
    host, port = _split(address, field)
    try:
        greeting = _greeting(host, port)
    except OSError as error:
        raise UserError(field, address, f"does not answer ({error.strerror or error})", remedy) from None
    if greeting[3:4] != bytes([SETTINGS]):
        raise UserError(field, address, "is answered by something other than a Ray head node", remedy)
    return address


def answers(address: str) -> bool:
    """Whether a head answers at HOST:PORT."""
    try:
        checked_address(address, "address", "")
    except UserError:
        return False
    return True


def _split(address: str, field: str) -> tuple[str, int]:
    matched = re.fullmatch(r"\[?([^\[\]\s/]+?)\]?:(\d{1,5})", address)
    if matched is None or not 0 < int(matched[2]) < 65536:
        raise UserError(field, address, "is not an address", "write HOST:PORT, such as 10.0.0.5:6379")
    return matched[1], int(matched[2])


def _greeting(host: str, port: int) -> bytes:
    """The first bytes that a server sends to a gRPC client."""
    with socket.create_connection((host, port), timeout=PROBE_SECONDS) as connection:
        connection.sendall(PREFACE)
        received = b""
        while len(received) < FRAME and (more := connection.recv(FRAME - len(received))):
            received += more
        return received
