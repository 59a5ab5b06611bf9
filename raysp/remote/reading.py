"""The runs of a service, read as from its store: the methods of `raysp.store.reading.StoreReader` that answers and reports are made from, over REST."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.game import Component
from raysp.remote.transport import Transport, following_offset
from raysp.runs.result import components_of
from raysp.spectral.fourier import FourierSurrogate
from raysp.store.failures import no_surrogate
from raysp.store.packing import Table
from raysp.store.surrogates import of_parts

#: What the tables of a run are called in paths, where that is not their name.
PATHS = {"validations": "validation", "events": "log"}
#: What the row of a run has in responses only.
ADDED = ("costs", "state")
#: Columns of a run's row that hold times.
TIMES = ("submitted", "started", "finished")
NOT_FOUND = 404
#: Runs of a page of the list.
PAGE_RUNS = 1_000


class RemoteReader:
    """Each method is documented in `StoreReader`. A run may be given by its id, the beginning of it, its name, or as last."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._run_of: dict[int, str] = {}

    def find_run(self, wanted: str) -> str:
        """As `StoreReader.find_run`."""
        return self.row(wanted)["run_id"]

    def row(self, run: str) -> dict[str, Any]:
        """The row of a run as the service writes it, with its state under `state` while the scheduler knows it."""
        return self.transport.json("GET", path_of(run))

    def run_row(self, run_id: str) -> dict[str, Any]:
        """As `StoreReader.run_row`."""
        found = _timed({name: value for name, value in self.row(run_id).items() if name not in ADDED})
        if found["game_id"] is not None:
            self._run_of[found["game_id"]] = found["run_id"]
        return found

    def run_table(self, name: str, run_id: str) -> Table:
        """As `StoreReader.run_table`."""
        return self._table(run_id, PATHS.get(name, name))

    def run_evaluations(self, run_id: str, phase: str | None = None) -> Table:
        """As `StoreReader.run_evaluations`."""
        return self._table(run_id, "evaluations", **({} if phase is None else {"phase": phase}))

    def evaluation_count(self, run_id: str) -> int:
        """The number of evaluations that a run requested."""
        response = self.transport.ask("GET", path_of(run_id, "evaluations"), query={"format": "arrow", "limit": 1})
        return int(response.headers["x-total-rows"])

    def run_outputs(self, run_id: str) -> NDArray[np.float64]:
        """As `StoreReader.run_outputs`."""
        rows = self._table(run_id, "outputs")
        flat: NDArray[np.float64] = rows["outputs"].combine_chunks().flatten().to_numpy()
        return flat.reshape(rows.num_rows, len(flat) // max(rows.num_rows, 1))

    def components(self, game_id: int) -> tuple[Component, ...]:
        """As `StoreReader.components`, of the game of a run whose row was read."""
        return components_of(self._table(self._run_of[game_id], "components"))

    def has_surrogate(self, run_id: str) -> bool:
        """As `StoreReader.has_surrogate`."""
        return self._part(run_id, None, "tails") is not None

    def surrogate(self, run_id: str, query: int | None = None) -> FourierSurrogate:
        """As `StoreReader.surrogate`."""
        found = self.stored_surrogate(run_id, query)
        if found is None:
            raise no_surrogate(run_id)
        return found

    def stored_surrogate(self, run_id: str, query: int | None = None) -> FourierSurrogate | None:
        """The surrogate of a run, None if it has none."""
        terms, points, tails = (self._part(run_id, query, part) for part in ("terms", "points", "tails"))
        if terms is None or points is None or tails is None:
            return None
        return of_parts(terms, points, tails, int(terms.schema.metadata[b"n"]), float(terms.schema.metadata[b"basis"]))

    def keep_probability(self, run_id: str) -> float:
        """As `StoreReader.keep_probability`."""
        found = self._part(run_id, None, "tails")
        if found is None:
            raise no_surrogate(run_id)
        return float(found.schema.metadata[b"keep_probability"])

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """The rows of all runs that the filters of `GET /runs` leave, newest first, with where each stands."""
        found: list[dict[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            query = {name: value for name, value in filters.items() if value is not None}
            response = self.transport.ask("GET", "/runs", query={"limit": PAGE_RUNS, **query, "offset": offset})
            found += [_timed(row) for row in response.json()["runs"]]
            offset = following_offset(response)
        return found

    def _table(self, run_id: str, path: str, **query: Any) -> Table:
        found = self.transport.table(path_of(run_id, path), **query)
        assert found is not None  # no status but success was allowed
        return found

    def _part(self, run_id: str, query: int | None, part: str) -> Table | None:
        """The terms, points or tails of a surrogate, None for a run that has none."""
        asked = {"part": part} | ({} if query is None else {"query": query})
        response = self.transport.ask("GET", path_of(run_id, "surrogate"), query={"format": "arrow", **asked}, allowed=(NOT_FOUND,))
        if response.is_success:
            return self.transport.arrow(response)
        self.row(run_id)  # raises for a run that does not exist
        return None


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its times as such."""
    return row | {name: datetime.fromisoformat(row[name]) for name in TIMES if row.get(name)}


def path_of(run: str, *rest: str) -> str:
    """The path of a run, or of something of it. UserError for a text that no run is called."""
    if not run or run in (".", "..") or "/" in run:
        raise UserError("run", run, "is unknown", "`raysp runs` lists all")
    return "/".join(["/runs", quote(run, safe=""), *rest])
