"""Where actions on finished runs, plans and exact predictions are carried out: a store to read and write, and backends that measure. In this process, or on a cluster."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raysp.errors import UserError
from raysp.runs.backend import Backend
from raysp.runs.local import local_backend
from raysp.runs.run_store import ActionStore
from raysp.specs.run import AnyLens, RunSpec
from raysp.store import Store


class Workplace(Protocol):
    """A store, and backends whose evaluations one run (or other payer) of it pays for."""

    @property
    def store(self) -> ActionStore:
        """The store."""
        ...

    def backend_of(self, lens: AnyLens) -> Backend:
        """A backend that measures the game of a lens. UserError for what the lens cannot do."""
        ...

    def prepared(self, spec: RunSpec) -> RunSpec:
        """The spec as the backends can read it: with the content of its files, where they are on another machine."""
        ...


@dataclass(frozen=True)
class LocalWorkplace:
    """A store that this process opened, and games built here."""

    store: Store

    def backend_of(self, lens: AnyLens) -> Backend:
        """As `Workplace.backend_of`."""
        return local_backend(lens)

    def prepared(self, spec: RunSpec) -> RunSpec:
        """As `Workplace.prepared`."""
        return spec


@contextmanager
def local_workplace(path: Path, *, reading: bool = False) -> Generator[LocalWorkplace]:
    """The calling process as a workplace. With `reading`, a store that another process writes is only read, and what is measured is not stored."""
    try:
        store = Store.open(path)
    except UserError:
        if not reading:
            raise
        store = Store.read(path)
    with store:
        yield LocalWorkplace(store)
