"""The reading half of a store: evaluations, answers, surrogates, games and runs, and a user's own SQL."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from raysp.errors import UserError
from raysp.game import Component, Example, Query
from raysp.store import answers, blobs, evaluations, games, gradients, noise, questions, run_states, surrogates, training_sets
from raysp.store.connection import Connection
from raysp.store.export_runs import export_runs
from raysp.store.failures import explained_reads, no_surrogate
from raysp.store.history import Earlier, earlier_runs, strongest
from raysp.store.slopes import price_of, slopes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raysp.gradients import GradientReport
    from raysp.masks import Masks, Values
    from raysp.spectral.fourier import FourierSurrogate
    from raysp.store.packing import Table


class StoreReader:
    """The reading methods of `Store`. They may be called from any thread, as each call uses its own cursor."""

    def __init__(self, con: Connection, path: Path) -> None:
        self.path = path
        self._con = con
        self._local = threading.local()
        self._games: dict[str, tuple[int, int]] = {}

    @explained_reads
    def known(self, game_id: int, masks: Masks) -> Values:
        """Return the stored values (float64, `(m,)`) of masks (bool, `(m, n)`) in a game, NaN for masks never evaluated."""
        return self._find(game_id, masks)[1]

    @explained_reads
    def blob(self, digest: str) -> bytes | None:
        """Return the content of a file that a question names, by its SHA-256 in hex, or None if it is not stored."""
        return blobs.find(self._cursor(), digest)

    @explained_reads
    def outputs(self, game_id: int, masks: Masks) -> NDArray[np.float64]:
        """Return the stored outputs (float64, `(m, queries)`) of masks (bool, `(m, n)`) in a game, NaN rows for masks never evaluated."""
        return training_sets.outputs_of(self._cursor(), game_id, self._find(game_id, masks)[0])

    @explained_reads
    def slopes(self, game_id: int, masks: Masks) -> NDArray[np.float32]:
        """Return the stored slopes (float32, `(m, queries, n)`, one query for a game without) of masks (bool, `(m, n)`) in a game, NaN where there are none."""
        return slopes_of(self._cursor(), self._find(game_id, masks)[0], max(len(self.queries(game_id)), 1), masks.shape[1])

    @explained_reads
    def slope_price(self, fingerprint: str) -> float | None:
        """Return the price of an evaluation with slopes, in evaluations without, in the game with this fingerprint; None if it was never measured."""
        return price_of(self._cursor(), fingerprint)

    @explained_reads
    def earlier(self, run_id: str) -> list[Earlier]:
        """Return the answers of earlier runs about the same components of the same model or input to other questions, the latest first (see `history`)."""
        return [Earlier(other, strongest(self.surrogate(other))) for other in earlier_runs(self._cursor(), run_id) if self.has_surrogate(other)]

    @explained_reads
    def run_evaluations(self, run_id: str, phase: str | None = None) -> Table:
        """Return the evaluations that a run requested, in that order: mask fixed-size list<bool>, value, phase, round, position, reused, fitted (to by its surrogate), evaluation_id."""
        game_id, n = self._game_of(run_id)
        return evaluations.of_run(self._cursor(), run_id, game_id, n, phase)

    @explained_reads
    def evaluations_page(self, run_id: str, offset: int, limit: int, phase: str | None = None) -> tuple[Table, int]:
        """Return some of a run's evaluations, as `run_evaluations`, and how many there are in all."""
        game_id, n = self._game_of(run_id)
        return evaluations.page(self._cursor(), run_id, game_id, n, phase, offset=offset, limit=limit)

    def run_masks(self, run_id: str, phase: str | None = None) -> Masks:
        """Return the masks (bool, `(m, n)`) that a run requested, in the order of `run_evaluations`."""
        _, n = self._game_of(run_id)
        rows = self.run_evaluations(run_id, phase)
        return rows["mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, n)

    @explained_reads
    def run_outputs(self, run_id: str, phase: str | None = None) -> NDArray[np.float64]:
        """Return the outputs (float64, `(m, queries)`) of a run's evaluations, in the order of `run_evaluations`."""
        game_id, _ = self._game_of(run_id)
        asked = self.run_evaluations(run_id, phase)["evaluation_id"].to_numpy()
        return training_sets.outputs_of(self._cursor(), game_id, asked)

    @explained_reads
    def surrogate(self, run_id: str, query: int | None = None) -> FourierSurrogate:
        """Return the surrogate of a run's value or of one of its queries, equal to the one that the run fitted.

        Raises ValueError for an unknown run, and UserError if none is stored: the run is unfinished, was made by an earlier version of raysp, or has no such query.
        """
        _, n = self._game_of(run_id)
        found = surrogates.read(self._cursor(), run_id, n, query)
        if found is None:
            self.keep_probability(run_id)
            raise UserError("query", query, f"is not one of run {run_id}", "the table queries lists them")
        return found

    @explained_reads
    def has_surrogate(self, run_id: str) -> bool:
        """Return whether a run has a stored surrogate."""
        return surrogates.keep_probability(self._cursor(), run_id) is not None

    @explained_reads
    def keep_probability(self, run_id: str) -> float:
        """Return P(keep) of the masks on which a run's surrogates are scored. Raises UserError as `surrogate`."""
        found = surrogates.keep_probability(self._cursor(), run_id)
        if found is None:
            raise no_surrogate(run_id)
        return found

    @explained_reads
    def fitted_evaluations(self, run_id: str) -> tuple[Masks, Values]:
        """Return masks (bool, `(m, n)`) and values (float64, `(m,)`) that a run's surrogates were fitted to, in the order in which its explorer received them."""
        _, n = self._game_of(run_id)
        return surrogates.fitted_evaluations(self._cursor(), run_id, n)

    @explained_reads
    def find_game(self, fingerprint: str) -> int | None:
        """Return the id of the game with this fingerprint, None if it is not stored."""
        return games.find(self._cursor(), fingerprint)

    @explained_reads
    def pace(self, game_id: int) -> tuple[int, float]:
        """Return the number of stored evaluations of a game that were measured without slopes, and the median of their seconds; 0 and NaN if there are none."""
        return evaluations.pace(self._cursor(), game_id)

    @explained_reads
    def gradient_report(self, fingerprint: str) -> GradientReport | None:
        """Return the gradient report of the game with this fingerprint, None if it was never computed."""
        return gradients.report_of(self._cursor(), fingerprint)

    @explained_reads
    def numeric_noise(self, fingerprint: str, keep_probability: float) -> dict[str, Any] | None:
        """Return the numeric noise of the game with this fingerprint at this P(keep), by `noise.FIGURES`; None if it was never measured."""
        return noise.find(self._cursor(), fingerprint, keep_probability)

    @explained_reads
    def run_table(self, name: str, run_id: str) -> Table:
        """Return one of `answers.RUN_TABLES` for a run, with set_order called `order`."""
        return answers.run_table(self._cursor(), name, run_id)

    def game_id(self, run_id: str) -> int:
        """Return the id of a run's game. Raises ValueError for an unknown run."""
        return self._game_of(run_id)[0]

    @explained_reads
    def has_requests(self, run_id: str) -> bool:
        """Return whether a run with this id has requested any evaluation."""
        return bool(self._cursor().execute("SELECT 1 FROM requests WHERE run_id = ? LIMIT 1", [run_id]).fetchall())

    @explained_reads
    def run_row(self, run_id: str) -> dict[str, Any]:
        """Return a run's row, JSON columns decoded, with the verdict's reasons under `reasons` and its game's row under `game`. ValueError for an unknown run."""
        return games.run_row(self._cursor(), run_id)

    @explained_reads
    def components(self, game_id: int) -> tuple[Component, ...]:
        """Return a game's components, in the order of the masks' columns."""
        return games.components(self._cursor(), game_id)

    @explained_reads
    def queries(self, game_id: int) -> tuple[Query, ...]:
        """Return a game's queries, in the order of the outputs' columns."""
        return training_sets.queries(self._cursor(), game_id)

    @explained_reads
    def examples(self, game_id: int) -> tuple[Example, ...]:
        """Return a game's training examples, in their order."""
        return training_sets.examples(self._cursor(), game_id)

    @explained_reads
    def runs(self) -> Table:
        """Return the view run_summary: one row per run, newest first."""
        return self._cursor().sql("SELECT * FROM run_summary").to_arrow_table()

    @explained_reads
    def run_states(self, run_ids: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Return the states of these runs, or of all, in the order of their submission.

        Rows have run_id, name, status, desired, priority, progress (JSON), error, verdict, and for queued runs the position in the queue, from 1.
        """
        return run_states.run_states(self._cursor(), run_ids)

    @explained_reads
    def unfinished_runs(self) -> list[dict[str, Any]]:
        """Return the runs submitted to a service that have not ended, in the order of their submission: columns of `run_states`, set_name and spec (JSON)."""
        return run_states.unfinished_runs(self._cursor())

    @explained_reads
    def find_run(self, wanted: str) -> str:
        """Return the id of the run that `wanted` refers to: an id or its beginning, a name (the newest run of that name), or 'last'. Raises UserError otherwise."""
        return games.find_run(self._cursor(), wanted)

    def sql(self, query: str, timeout_s: float = questions.TIMEOUT_SECONDS) -> Table:
        """Return the answer to a user's SELECT-like statement. Raises UserError("sql", ...) for other statements, SQL errors, and after `timeout_s` seconds."""
        return self.ask(query, questions.Limits(timeout_s)).table

    def ask(self, query: str, limits: questions.Limits) -> questions.Answer:
        """Return the answer to a user's SELECT-like statement within limits; errors as `sql`, and UserError if it is larger than they allow.

        A single function call that takes long or much memory can exceed them; `confined.ask_confined` asks in a process of its own, which holds to them.
        """
        cur = self._con.cursor()
        try:
            return questions.ask(cur, query, limits)
        finally:
            cur.close()

    @explained_reads
    def export(self, run_ids: Sequence[str], folder: Path) -> dict[str, int]:
        """Write runs as Parquet files, FOLDER/TABLE/run_id=RUN/data.parquet, and return the number of rows by table. Raises UserError if FOLDER cannot be made."""
        cur = self._con.cursor()
        try:
            return export_runs(cur, run_ids, folder)
        finally:
            cur.close()

    # ---- internal

    def _find(self, game_id: int, masks: Masks) -> tuple[NDArray[np.int64], Values]:
        """Return the evaluation ids (0: not stored) and values (NaN: not stored) of masks."""
        return evaluations.find(self._cursor(), game_id, masks)

    def _cursor(self) -> Connection:
        if not hasattr(self._local, "cursor"):
            self._local.cursor = self._con.cursor()
        return self._local.cursor

    def _game_of(self, run_id: str) -> tuple[int, int]:
        if run_id not in self._games:
            found = self._cursor().execute("SELECT game_id, n FROM runs WHERE run_id = ?", [run_id]).fetchall()
            if not found:
                raise ValueError(f"no run {run_id}: start_run comes first")
            if found[0][0] is None:
                raise UserError("run", run_id, "has not begun, so it has no game yet", f"wait for it with `raysp watch {run_id}`")
            self._games[run_id] = (int(found[0][0]), int(found[0][1]))
        return self._games[run_id]
