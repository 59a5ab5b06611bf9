"""Interrupts: SIGTERM, which `ray job stop`, Slurm and Kubernetes send, counts as one from the keyboard, and neither may tear what must happen completely.

Python raises KeyboardInterrupt between any two instructions of the main thread, also between the beginning of a transaction and the block that would roll it back.
"""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupted_by_termination() -> Generator[None]:
    """Raise KeyboardInterrupt on SIGTERM within the block. Outside the main thread, where Python cannot handle signals, this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None stands for a handler that was not installed from Python, such as Ray's, which prints a stack trace.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def uninterrupted() -> Generator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block, where they are handled as they would have been. For short blocks; may be nested.

    Signals that no Python function handles are left as they are, as they end the process at once. Outside the main thread, where Python handles no signals, this
    does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = _Held()
    try:
        for number in _INTERRUPTS:
            held.hold(number)
        yield
    finally:
        held.let_go()


class _Held:
    """Signals that wait. Once let go it passes them on, so that an interrupt while the handlers are put back leaves none that swallows signals."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: list[tuple[int, FrameType | None]] | None = []

    def hold(self, number: int) -> None:
        before = signal.getsignal(number)
        if callable(before):
            self._before[number] = before
            signal.signal(number, self)

    def let_go(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for number, before in self._before.items():
            signal.signal(number, before)
        for number, frame in waiting:
            self._before[number](number, frame)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waiting is None:
            self._before[number](number, frame)
        else:
            self._waiting.append((number, frame))
