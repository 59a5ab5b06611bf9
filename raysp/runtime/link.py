"""Calls of the scheduler that outlive it: a scheduler that died is found again, or started again, and asked again."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raysp.errors import InterruptedRunError, UserError
from raysp.runtime.messages import PASSED_ON, RecoveringError

#: How long a call may take before the scheduler is looked for again. Every call can be repeated.
CALL_SECONDS = 600.0
#: How often a call that waits looks whether it was cancelled.
POLL_SECONDS = 0.5
#: How long a scheduler that has died is looked for before giving up.
ABSENT_SECONDS = 600.0
#: How soon a process that could not be reached is asked again.
AGAIN_SECONDS = 0.2

Find = Callable[[], Any]


def never() -> bool:
    """Nothing is cancelled."""
    return False


class Link:
    """The scheduler, as `find` returns it, for any number of threads. Errors of the scheduler are raised as it raised them.

    One that has died is looked for `absent` seconds long.
    """

    def __init__(self, find: Find, actor: Any = None, absent: float = ABSENT_SECONDS) -> None:
        self._find, self._absent = find, absent
        self._actor = find() if actor is None else actor

    def call(self, method: str, *arguments: Any, cancelled: Callable[[], bool] = never, seconds: float = CALL_SECONDS) -> Any:
        """The answer of a method that may be called more than once; a scheduler that is recovering is asked again. InterruptedRunError once cancelled.

        After `seconds` without an answer the scheduler is looked for, and asked, again.
        """
        gone_since: float | None = None
        while True:
            try:
                return self._answer(getattr(self._actor, method).remote(*arguments), cancelled, seconds)
            except RayTaskError as error:
                if not isinstance(error.cause, RecoveringError):
                    raise passed_on(error) from None
                if cancelled():
                    raise InterruptedRunError("the run was cancelled") from None
                time.sleep(POLL_SECONDS)
            except (RayActorError, GetTimeoutError):
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > self._absent:
                    raise
                time.sleep(AGAIN_SECONDS)
                self._look_again()

    @staticmethod
    def _answer(reference: Any, cancelled: Callable[[], bool], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
            if cancelled():
                raise InterruptedRunError("the run was cancelled")
            if time.monotonic() > deadline:
                raise GetTimeoutError
        return ray.get(reference, timeout=POLL_SECONDS)

    def _look_again(self) -> None:
        try:
            self._actor = self._find()
        except (UserError, RayActorError, GetTimeoutError, ValueError):  # it is being started, or does not answer yet
            return


def passed_on(error: RayTaskError) -> BaseException:
    """What another process raised, as it raised it, if it is one of `PASSED_ON` or carries its traceback as a note."""
    cause = getattr(error, "cause", None)
    known = isinstance(cause, PASSED_ON) or (isinstance(cause, Exception) and hasattr(cause, "__notes__"))
    return cause if known and isinstance(cause, Exception) else error
