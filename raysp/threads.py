"""How many threads the arithmetic of this process uses. Knows nothing of what is computed."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module


def set_threads(count: int) -> None:
    """Use this many threads for the arithmetic of this process on a CPU, torch's and NumPy's."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


@contextmanager
def one_thread() -> Generator[None]:
    """Within the block linear algebra runs on one thread: sums are then made in the same order everywhere, and at these sizes a second costs more than it brings."""
    from threadpoolctl import threadpool_limits

    import_module("scipy.linalg")  # it has a BLAS of its own, which can only be limited once it is loaded
    with threadpool_limits(1):
        yield
