"""Treat SIGTERM, which `ray job stop`, Slurm and Kubernetes send, like an interrupt from the keyboard: the run is stored and can be resumed."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


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
