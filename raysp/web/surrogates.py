"""Surrogates of runs, kept in memory with what their intervals are computed from, so that a prediction takes milliseconds."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysp.masks import Masks, lookup
from raysp.runs.prediction import Measured, Prediction, measured_by, predict
from raysp.spectral.fourier import FourierSurrogate
from raysp.web.readings import STALE_SECONDS, Readings

#: Surrogates that are kept, the least recently used of which is dropped.
KEPT = 32


@dataclass(frozen=True)
class Kept:
    """The surrogate of a run or of one of its queries, the run's row, its labels, and the evaluations that intervals come from."""

    row: dict[str, Any]
    labels: list[str]
    surrogate: FourierSurrogate
    known: Measured
    read_at: float
    query: int | None = None

    def predict(self, masks: Masks, readings: Readings, since: float = 0.0) -> list[Prediction]:
        """Predictions for masks (bool, `(k, n)`), with the values of those that were measured until `since`, by this run or another one of its game."""
        found = lookup(self.known.masks, masks)
        measured = np.where(found >= 0, self.known.values[found], np.nan)
        if (found < 0).any():
            with readings.reading(since) as store:
                game_id, others = self.row["game_id"], masks[found < 0]
                measured[found < 0] = store.known(game_id, others) if self.query is None else store.outputs(game_id, others)[:, self.query]
        return predict(self.surrogate, self.known, masks, self.labels, measured)


class Surrogates:
    """Surrogates by run and query."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._kept: OrderedDict[tuple[str, int | None], Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run_id: str, query: int | None = None, since: float = 0.0) -> Kept:
        """The surrogate of a run, as the store had it at `since` (seconds since the epoch) or later. UserError if there is none, and for an unknown query."""
        key = (run_id, query)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.read_at >= since:
                self._kept.move_to_end(key)
                return kept
        kept = self._read(run_id, query, since)
        with self._lock:
            self._kept[key] = kept
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def _read(self, run_id: str, query: int | None, since: float) -> Kept:
        now = time.time()
        with self._readings.reading(since) as store:
            row, surrogate, known = store.run_row(run_id), store.surrogate(run_id, query), measured_by(store, run_id, query)
            labels = [component.label for component in store.components(row["game_id"])]
        return Kept(row, labels, surrogate, known, max(since, now - STALE_SECONDS), query)
