"""Errors of a service as the errors that the same request would raise here: its problem documents (RFC 9457), and answers that are not its own."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.remote.address import Address

PROBLEM = "application/problem+json"
#: What is behind the message of a connection that failed because of its certificate, or because one side does not speak TLS.
_TLS = ("SSL", "TLS", "CERTIFICATE")
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"


def error_of(address: Address, response: httpx.Response) -> Exception:
    """The error that a response stands for."""
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return UserError(address.token_name, None, f"is refused by the service at {address.url}", "`raysp token` prints the right one on the service's machine")
    document = _document(response)
    if document is None:
        return stranger(address, response)
    detail = str(document.get("detail") or document.get("title") or response.reason_phrase)
    if document.get("field"):
        return UserError(str(document["field"]), document.get("value"), str(document.get("problem")), str(document.get("remedy")))
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return UserError("content", None, f"is too large for the service ({detail})", "give fewer rows, or put the data set on the hub")
    if response.status_code == HTTPStatus.CONFLICT:
        return InterruptedRunError(detail)
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        return EvaluationError(detail)
    return UserError("server", address.url, f"answered {response.status_code} ({detail})", "look into its log")


def stranger(address: Address, response: httpx.Response) -> UserError:
    """The error for an answer that no service of raysp gives."""
    problem = f"is answered by something other than raysp (status {response.status_code})"
    return UserError("server", address.url, problem, "`raysp status` on the service's machine shows its URL")


def unreachable(address: Address, error: httpx.TransportError) -> UserError:
    """The error for a service that cannot be reached."""
    text = " ".join(str(error).split())
    if is_tls(error):
        untrusted = _CERTIFICATE in text.upper()
        problem = "has a certificate that is not trusted here" if untrusted else "does not speak TLS as this side does"
        remedy = "set SSL_CERT_FILE to the certificate of its authority" if untrusted else "check whether it is http:// or https://"
        return UserError("server", address.url, f"{problem} ({text})", remedy)
    if isinstance(error, httpx.TimeoutException):
        return UserError("server", address.url, f"does not answer in time ({type(error).__name__})", "check that the service runs and can be reached")
    return UserError("server", address.url, f"cannot be reached ({text or type(error).__name__})", "start it with `raysp up`, or check the URL")


def is_tls(error: httpx.TransportError) -> bool:
    """Whether trying again is of no use, because the two sides cannot agree on TLS."""
    return isinstance(error, httpx.ConnectError) and any(sign in str(error).upper() for sign in _TLS)


def _document(response: httpx.Response) -> Mapping[str, Any] | None:
    if response.headers.get("content-type", "").partition(";")[0] != PROBLEM:
        return None
    try:
        found: Any = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
