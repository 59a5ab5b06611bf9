"""The errors of this package. Each is one line that a person can act on.

The command line prints `str(error)` and exits with 2 for a UserError; a cluster passes the object on unchanged.
"""

import re
from typing import Self

from raysp.blobs import shown

#: A user and password in a URL, a secret parameter of one, and tokens by the prefixes that their issuers give them.
_SECRETS = re.compile(
    r"(?P<before>://)[^\s/@'\"]+(?P<after>@)"
    r"|(?P<name>[?&](?:access_|auth_|api_?)?(?:token|key|password|secret|signature)=)[^\s&'\"]+"
    r"|\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{12,})",
    re.IGNORECASE,
)


class UserError(ValueError):
    """A mistake that its author can correct: the field, its value (None: not shown), what is wrong with it, and what to do instead.

    Prints as ``field: 'value' problem; remedy``. It can be pickled, so a remote process can raise it. Of a reference to content, the value is the path.
    """

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        value = shown(value) if isinstance(value, str) else value
        super().__init__(field, value, problem, remedy)
        self.field, self.value, self.problem, self.remedy = field, value, problem, remedy

    def about(self, field: str) -> Self:
        """The same error, naming another field."""
        return type(self)(field, self.value, self.problem, self.remedy)

    def __str__(self) -> str:
        given = "" if self.value is None else f"{_short(self.value)} "
        return masked(" ".join(f"{self.field}: {given}{self.problem}; {self.remedy}".split()))


class DoesNotFitError(UserError):
    """A model does not fit into the memory of its device."""


class EvaluationError(RuntimeError):
    """An evaluation did not give a finite number; the message names the mask."""


class InterruptedRunError(RuntimeError):
    """A run was stopped before its end. What it evaluated is stored, and the run can be resumed from there."""

    @classmethod
    def of(cls, run_id: str, what: str = "interrupted") -> "InterruptedRunError":
        """The error of a run that was interrupted (or cancelled), with the command that continues it."""
        return cls(f"run {run_id} was {what}; `raysp resume {run_id}` continues from what is stored")


class JobError(RuntimeError):
    """A job on a cluster ended without its answer: what it said, and its exit status, which become those of the command that sent it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code

    def __str__(self) -> str:
        return masked(self.message)


def masked(text: str) -> str:
    """A text without the secrets in it: passwords and tokens in URLs, and tokens of the hub and of common services, become `***`."""
    return _SECRETS.sub(lambda found: f"{found['before'] or found['name'] or ''}***{found['after'] or ''}", text)


def _short(value: object, limit: int = 80) -> str:
    """The value as Python writes it; a long one loses its middle, since a path is recognised by its end."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, or a value nested too deeply
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 + limit // 2 - limit :]}"
