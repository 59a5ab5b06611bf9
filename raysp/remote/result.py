"""A run of a service as a `Result` whose parts are fetched when they are first used."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from raysp.remote.reading import RemoteReader
from raysp.runs.prediction import Prediction
from raysp.runs.result import TABLES, Result

Predict = Callable[[str, Sequence[int | str] | None, Sequence[int | str] | None], Prediction]


class RemoteResult(Result):
    """As `Result`, of a run that a service keeps. Every part is fetched when it is first used, once."""

    def __init__(self, reader: RemoteReader, run_id: str, predict: Predict) -> None:
        vars(self).update(run_id=run_id, _reader=reader, _predict=predict, _lock=threading.RLock())

    def __getattr__(self, name: str) -> Any:
        """Fetch what is not known yet."""
        fetch = _PARTS.get(name)
        if fetch is None or "_reader" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._lock:
            if name not in vars(self):
                vars(self)[name] = fetch(self._reader, self.run_id)
            return vars(self)[name]

    @property
    def evaluation_count(self) -> int:
        """As `Result.evaluation_count`, without fetching the evaluations."""
        return self.evaluations.num_rows if "evaluations" in vars(self) else self._reader.evaluation_count(self.run_id)

    def predict(self, removed: Sequence[int | str] | None = None, *, kept: Sequence[int | str] | None = None) -> Prediction:
        """As `Result.predict`. The service predicts, so that neither surrogate nor evaluations are fetched."""
        return self._predict(self.run_id, removed, kept)

    def __reduce__(self) -> Any:
        """A copy for another process has everything, as it has no connection."""
        return (Result, tuple(getattr(self, name) for name in Result.__dataclass_fields__))


def _table(name: str) -> Callable[[RemoteReader, str], Any]:
    return lambda reader, run_id: reader.run_table(name, run_id)


#: How each part of a result is fetched.
_PARTS: dict[str, Callable[[RemoteReader, str], Any]] = {
    **{"validation" if name == "validations" else name: _table(name) for name in TABLES},
    "summary": RemoteReader.run_row,
    "evaluations": RemoteReader.run_evaluations,
    "outputs": RemoteReader.run_outputs,
    "surrogate": RemoteReader.stored_surrogate,
}
