"""The list of runs, read once from each snapshot: pages ask for it whenever the status of a run changes."""

import threading
from typing import Any

from raysp.store import Store

Rows = list[dict[str, Any]]
ById = dict[str, dict[str, Any]]


class Lists:
    """The rows of all runs, newest first, and what the store says of where each stands, as the last snapshot has them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._as_of: float | None = None
        self._found: tuple[Rows, ById] = ([], {})

    def of(self, store: Store) -> tuple[Rows, ById]:
        """The rows and, by run, the states of a store. Neither may be changed."""
        with self._lock:  # whoever comes second finds what the first has read
            if store.as_of is None or store.as_of != self._as_of:
                self._found = store.runs().to_pylist(), {row["run_id"]: row for row in store.run_states()}
                self._as_of = store.as_of
            return self._found
