"""A cluster as the workplace of actions on finished runs: their evaluations are orders that run pays for, and the scheduler reads and writes their store."""

import itertools
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

from raysp.datasets.content import portable
from raysp.runs.backend import Backend
from raysp.runtime.backend import ServiceBackend
from raysp.runtime.link import Link
from raysp.runtime.store_proxy import StoreProxy
from raysp.specs.run import AnyLens, RunSpec


class ServiceWorkplace(ExitStack):
    """As `raysp.runs.workplace.Workplace`, for the store at `path` and what `payer` pays for. As a context manager, it closes its backends."""

    def __init__(self, link: Link, path: Path, payer: str) -> None:
        super().__init__()
        self.store = StoreProxy(link, path)
        self._link, self._payer = link, payer
        self._name, self._numbers = f"{payer}:{token_hex(4)}", itertools.count(1)

    def backend_of(self, lens: AnyLens) -> Backend:
        """As `Workplace.backend_of`: a session of its own."""
        carried = self.prepared(RunSpec(lens=lens)).lens
        session = f"{self._name}:{next(self._numbers)}"
        return self.enter_context(ServiceBackend(self._link, carried, session=session, store=self.store.path, payer=self._payer))

    def prepared(self, spec: RunSpec) -> RunSpec:
        """As `Workplace.prepared`: the content of the files that the spec names is put into the store."""
        carried, content = portable(spec)
        if content:
            self.store.add_blobs(content.values())
        return carried
