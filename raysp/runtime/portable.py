"""Errors that can be kept and sent to another process."""

import pickle
import traceback

from raysp.errors import EvaluationError, InterruptedRunError, UserError

#: Errors with a message for a person, who needs no traceback.
EXPECTED = (UserError, EvaluationError, InterruptedRunError)


def portable(error: BaseException, where: str) -> BaseException:
    """The error without its frames, which would keep everything that they refer to in memory.

    An unexpected error carries its traceback as a note that begins with `where` it was raised. One that does not survive pickling becomes a RuntimeError
    with the same text.
    """
    if not isinstance(error, EXPECTED):
        error.add_note(f"{where}:\n{''.join(traceback.format_exception(error)).rstrip()}")
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  what was pickled just now
        except Exception:  # noqa: BLE001  whatever an exception's own constructor raises
            error = RuntimeError(f"{type(error).__name__}: {error}\n{error.__notes__[-1]}")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
