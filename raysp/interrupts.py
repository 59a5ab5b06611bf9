"""What ends a process from outside is an interrupt like the keyboard's: `ray job stop`, Slurm and Kubernetes send SIGTERM, and the run is left to be resumed."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def interrupted_by_termination() -> Generator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt. Does nothing outside of the main thread, where Python cannot listen to signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None stands for a handler that is not Python's, such as Ray's, which prints a trace of its own stack.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
