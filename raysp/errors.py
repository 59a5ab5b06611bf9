"""What a person can get wrong, said in one line.

Nothing here knows what raised it: the command line prints `str(error)` and exits with 2, a cluster passes the object on as it is.
"""


class UserError(ValueError):
    """A mistake that its author can mend: which field, what it held, and what would do instead.

    Prints as ``field: 'value' problem; mend``. Survives pickling, so a remote process can raise it.
    """

    def __init__(self, field: str, value: object, problem: str, mend: str) -> None:
        super().__init__(field, value, problem, mend)
        self.field, self.value, self.problem, self.mend = field, value, problem, mend

    def __str__(self) -> str:
        shown = "" if self.value is None else f"{_short(self.value)} "
        return " ".join(f"{self.field}: {shown}{self.problem}; {self.mend}".split())


class DoesNotFitError(UserError):
    """A model that the memory of its device does not hold."""


class EvaluationError(RuntimeError):
    """An evaluation gave no usable number; the message names the mask."""


class InterruptedRunError(RuntimeError):
    """A run was stopped before its end; what it had evaluated is stored, and the run resumes from there."""

    @classmethod
    def of(cls, run_id: str, what: str = "interrupted") -> "InterruptedRunError":
        """The error of a run that was interrupted (or cancelled), with the command that continues it."""
        return cls(f"run {run_id} was {what}; `raysp resume {run_id}` continues from what is stored")


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
