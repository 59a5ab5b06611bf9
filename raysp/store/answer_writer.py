"""The part of a store that writes what runs and actions on them have found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.errors import masked
from raysp.store import answers, surrogates
from raysp.store.stamps import now
from raysp.store.state_writer import RunStateWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raysp.store.packing import Table
    from raysp.store.surrogates import RunSurrogates


class AnswerWriter(RunStateWriter):
    """The methods of `Store` that write the answers of runs, and what actions on finished runs find."""

    def finish_run(
        self,
        run_id: str,
        status: str,
        summary: Mapping[str, Any],
        surrogate: RunSurrogates | None = None,
        **tables: Table | None,
    ) -> None:
        """Store a run's answer, replacing an earlier one. `summary` has keys of `answers.SUMMARY`, and `reasons`; `tables` are those of `answers.ANSWERS`.

        Reasons are mappings with the keys code, figures (a mapping) and sentence.

        Columns are those of the tables in SQL (`order` for set_order); missing labels, ranks and orders are added. Raises ValueError, and stores nothing,
        for unknown tables and columns.
        """
        game_id, _ = self._game_of(run_id)
        components = self.components(game_id)
        fitted = np.zeros(0, dtype=np.int64) if surrogate is None else self._find(game_id, surrogate.fitted)[0]
        with self._transaction() as cur:
            answers.replace_answers(cur, run_id, tables, components)
            surrogates.replace(cur, run_id, surrogate, fitted)
            answers.replace_reasons(cur, run_id, summary.get("reasons", ()))
            answers.update_run(cur, run_id, status, {key: value for key, value in summary.items() if key != "reasons"}, now())

    def add_prunings(self, run_id: str, rows: Table) -> None:
        """Store the prunings of a run's model, replacing earlier ones: columns of the table in SQL, to which `created` is added.

        Raises ValueError, and changes nothing, for unknown columns or an unknown run.
        """
        self._game_of(run_id)
        with self._transaction() as cur:
            answers.replace_rows(cur, "prunings", run_id, rows, now())

    def replace_data_scores(self, run_id: str, rows: Table) -> None:
        """Store how well methods predicted retraining, replacing earlier scores of the run; columns and errors as `add_prunings`."""
        self._game_of(run_id)
        with self._transaction() as cur:
            answers.replace_rows(cur, "data_scores", run_id, rows, now())

    def add_selections(self, run_id: str, rows: Table) -> None:
        """Store selections from a run's training set, replacing those made by the same `rule`; columns and errors as `add_prunings`."""
        self._game_of(run_id)
        with self._transaction() as cur:
            answers.replace_selections(cur, run_id, rows, now())

    def set_status(self, run_id: str, status: str, error: str | None = None) -> None:
        """Set a run's status: running, done, failed or interrupted. Secrets in the error are masked."""
        self._game_of(run_id)
        with self._transaction() as cur:
            answers.update_run(cur, run_id, status, {"error": error and masked(error)}, None if status == "running" else now())
