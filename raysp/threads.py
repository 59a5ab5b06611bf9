"""How many threads the linear algebra of this process uses."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def one_thread() -> Generator[None]:
    """Run linear algebra on one thread within the block.

    Sums are then computed in the same order on every machine, and at these sizes a second thread costs more time than it saves.
    """
    from threadpoolctl import threadpool_limits

    import_module("scipy.linalg")  # scipy bundles a BLAS of its own, which can be limited only once it is loaded
    with threadpool_limits(1):
        yield
