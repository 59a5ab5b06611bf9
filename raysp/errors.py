"""The errors of this package. Each is one line that a person can act on.

The command line prints `str(error)` and exits with 2 for a UserError; a cluster passes the object on unchanged.
"""

from typing import Self

from raysp.blobs import shown


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
        return " ".join(f"{self.field}: {given}{self.problem}; {self.remedy}".split())


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


def _short(value: object, limit: int = 80) -> str:
    """The value as Python writes it; a long one loses its middle, since a path is recognised by its end."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 + limit // 2 - limit :]}"
