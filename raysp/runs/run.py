"""The loop of one run, from its first mask to its verdict: ask, evaluate, store, tell, validate, answer.

A run does not depend on Ray or on models: a `Backend` measures the batches of masks, so the answer is the same in one process and on a cluster. Every batch is
stored as soon as it is measured, by the run or by its backend; a resumed run pays only for the rest.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.explorers import explorer_of
from raysp.explorers.base import Explorer, Findings
from raysp.game import GameInfo, labels
from raysp.masks import Masks, Values, check_finite, first_of_each, pack, unpack
from raysp.runs.answer import annotate, summarise
from raysp.runs.backend import Backend, batches
from raysp.runs.calibration import Calibration, calibrate
from raysp.runs.continuation import check_same_game, check_same_question
from raysp.runs.gradients import Gradients
from raysp.runs.prediction import Measured
from raysp.runs.progress import Progress, Tally, Watch
from raysp.runs.queries import QueryAnswers, answer_queries
from raysp.runs.run_store import RunStore
from raysp.runs.slopes import SlopePrice, checked_slopes
from raysp.runs.state import spec_json
from raysp.sampling.matching import distinct
from raysp.specs.run import RunSpec
from raysp.store import RunSurrogates
from raysp.validation import Agreement, ValidationPlan, ValidationResult, compare_attributions, judge, plan

# A preview of R² takes time from evaluations, so there is none in a run's first seconds or on few values, and the next one needs half as many values again.
PREVIEW_SECONDS = 3.0
PREVIEW_VALUES = 100
PREVIEW_GROWTH = 1.5
# Rows that a preview is fitted to at most: more change it by less than its progress bar shows.
PREVIEW_ROWS = 3_000


@dataclass
class Run:
    """The loop of one run. `report` receives its progress; `cancelled` is checked between batches."""

    spec: RunSpec
    backend: Backend
    store: RunStore
    run_id: str
    set_name: str | None = None
    report: Watch = lambda _: None
    cancelled: Callable[[], bool] = lambda: False
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.run_id)
        self._tally = Tally({})
        self._preview_at = PREVIEW_VALUES
        self._exploring_since = time.perf_counter()
        self._calibration: Calibration | None = None
        self._noted: set[str] = set()
        self._gradients = Gradients(self.store, self.backend)
        self._slope_price = SlopePrice(self.store, self.backend)

    def execute(self) -> None:
        """Run to the end. If the run fails, its row records the error and its evaluations stay.

        Raises UserError without writing a row if the question is invalid, and UserError without changing the row if a run with this id has evaluations of
        another question.
        """
        started = start_explorer(self.spec, self.backend.info)
        if self.store.has_requests(self.run_id):
            row = self.store.run_row(self.run_id)
            check_same_game(row, self.backend.info, "parts of a question")
            check_same_question(row, self.spec)
        began = time.perf_counter()
        try:
            self._report(phase="calibrate")
            self._calibration = calibrate(self.spec, self.backend, self.store, started.keep_probability)
            explorer = self._gradients.inform(started, self.spec.lens)
            # Asking would settle the explorer's first round before it knows of slopes: another one like it is asked.
            explorer = self._slope_price.inform(explorer, lambda: start_explorer(self.spec, self.backend.info).certain_masks())
        except UserError:
            raise  # there is nothing yet that could be resumed
        except BaseException as error:
            self._begin(started)
            self._end(error)
            raise
        calibrating = time.perf_counter() - began if self._calibration or self._gradients.wall_seconds or self._slope_price.sample else 0.0
        self._begin(explorer)
        try:
            # Only once it has begun is it known which runs came before it.
            explorer = explorer.with_history(lambda: [each.surrogate for each in self.store.earlier(self.run_id)])
            self._announce()
            self._store_calibration(calibrating)
            self._answer(explorer)
        except BaseException as error:
            self._end(error)
            raise

    def _announce(self) -> None:
        """Record and report the notes and warnings of the game."""
        info = self.backend.info
        for kind, texts in (("note", info.notes), ("warning", info.warnings)):
            for text in texts:
                self.store.add_event(self.run_id, kind, text)
        self._report(warnings=info.warnings)

    def _store_calibration(self, wall_seconds: float) -> None:
        """Store what calibration measured in the run's dtype, with and without slopes, and its other costs."""
        found = self._calibration
        if found is not None and found.sample is not None:
            masks, first = found.sample.masks, found.sample.first
            self._note(first.notes)
            values, outputs = self._checked(masks, first.values), self._checked_outputs(masks, first.outputs)
            self.store.add_evaluations(self.run_id, "calibrate", masks, values, tokens=first.tokens, seconds=first.seconds, outputs=outputs)
        if found is not None and found.evaluations:
            self.store.add_cost(self.run_id, "calibrate", evaluations=found.evaluations, tokens=found.tokens, seconds=found.seconds)
        self._slope_price.store_sample(self.run_id)
        if wall_seconds:
            self.store.add_cost(self.run_id, "calibrate", wall_seconds=wall_seconds)

    def _begin(self, explorer: Explorer) -> None:
        self.store.start_run(
            self.run_id,
            spec_json(self.spec),
            self.backend.info,
            lens=self.spec.lens.kind,
            explorer=explorer.name,
            seed=self.spec.seed,
            name=self.spec.name,
            set_name=self.set_name,
        )

    def _end(self, error: BaseException) -> None:
        """Store how the run ended. Raises InterruptedRunError in place of a keyboard interrupt, as the run can be resumed."""
        interrupted = isinstance(error, InterruptedRunError | KeyboardInterrupt)
        self.store.set_status(self.run_id, "interrupted" if interrupted else "failed", None if interrupted else str(error))
        if isinstance(error, KeyboardInterrupt):
            raise InterruptedRunError.of(self.run_id) from None

    def _answer(self, explorer: Explorer) -> None:
        info, began = self.backend.info, time.perf_counter()
        self._tally = Tally({"explore": explorer.planned(info.n) + 2, "validate": self.spec.validation.planned(info.n)})
        intact, empty = self.evaluate(ends_of(info.n), "explore", 0)
        self._explore(explorer)
        findings = self._analyse(explorer)
        planned, checked, verdict = self._validate(explorer, findings)
        table = annotate(findings, verdict, info, Measured.with_checks(explorer, planned.masks, checked))
        summary = summarise(findings, verdict, info, intact=float(intact), empty=float(empty))
        if self._calibration is not None:
            summary["metrics"]["numeric_noise"] = self._calibration.row()
        checks = self._cross_check(findings) if self.spec.cross_check or explorer.requires_gradients else None
        if checks is not None:
            summary["reasons"] += [reason.row() for reason in checks.reasons]
            summary["metrics"]["cross_checks"] = checks.metrics
        asked = self._answer_queries(explorer, planned) if info.queries else None
        if asked is not None:
            summary["metrics"]["queries"] = asked.metrics
        self.store.finish_run(
            self.run_id,
            "done",
            summary,
            RunSurrogates(findings.surrogate, explorer.keep_probability, explorer.masks[explorer.fitted_rows], asked.surrogates if asked else ()),
            singles=findings.singles,
            interactions=table,
            validations=verdict.table,
            heldout=verdict.heldout,
            cross_checks=checks.table if checks is not None else None,
            **(asked.tables if asked is not None else {}),
        )
        for note in (*findings.notes, *(asked.notes if asked is not None else ())):
            self.store.add_event(self.run_id, "finding", note)
        self.store.add_event(self.run_id, "done", f"{verdict.verdict}, {time.perf_counter() - began:.1f} s")
        self._report(phase="done", detail="")

    def _explore(self, explorer: Explorer) -> None:
        round_number = 1
        self._exploring_since = time.perf_counter()
        while not explorer.done():
            masks, slopes = explorer.ask(), self.backend.info.slopes and explorer.asks_slopes
            values = self.evaluate(masks, "explore", round_number, explorer, slopes=slopes)
            self._tell(explorer, masks, values, slopes=slopes)
            round_number += 1

    def _tell(self, explorer: Explorer, masks: Masks, values: Values, *, slopes: bool) -> None:
        """Tell the explorer the outputs, or the values, and the slopes that were requested."""
        game_id = self.store.game_id(self.run_id)
        if self.backend.info.queries:
            values = self.store.outputs(game_id, masks)
        elif slopes:  # a value that was known is measured again with its slopes, and the stored one counts
            values = self.store.known(game_id, masks)
        explorer.tell(masks, values, slopes=self.store.slopes(game_id, masks) if slopes else None)

    def _analyse(self, explorer: Explorer) -> Findings:
        self._tally.settle("explore")
        self._report(phase="analyse", **self._tally.figures() | {"rate": 0.0, "left": None})
        began = time.perf_counter()
        findings = explorer.result()
        self.store.add_cost(self.run_id, "analyse", wall_seconds=time.perf_counter() - began)
        return findings

    def _validate(self, explorer: Explorer, findings: Findings) -> tuple[ValidationPlan, Values, ValidationResult]:
        # Validation masks come from their own random stream, so they do not depend on the explorer's draws.
        rng = np.random.default_rng([self.spec.seed, 1])
        planned = plan(findings, self.backend.info.n, self.spec.validation, explorer.keep_probability, rng, explorer.masks)
        values = self.evaluate(planned.masks, "validate", 0)
        self._tally.settle("validate")
        self._report(**self._tally.figures() | {"rate": 0.0, "left": None})
        noise = self._calibration and self._calibration.noise
        return planned, values, judge(planned, values, explorer.masks, explorer.values, self.spec.seed, importance=explorer.importance, noise=noise)

    def _answer_queries(self, explorer: Explorer, planned: ValidationPlan) -> QueryAnswers:
        """Answer each query from the outputs of all evaluations that the run requested."""
        began = time.perf_counter()
        masks = distinct(np.concatenate([explorer.masks, planned.masks, ends_of(self.backend.info.n)]))
        outputs = self.store.outputs(self.store.game_id(self.run_id), masks)

        def watch(done: int, total: int) -> None:
            self._report(phase="queries", detail=f"{done} of {total} queries")
            self._stop_if_cancelled()

        answers = answer_queries(explorer, planned, masks, outputs, self.backend.info, watch=watch)
        self.store.add_cost(self.run_id, "analyse", wall_seconds=time.perf_counter() - began)
        return answers

    def _cross_check(self, findings: Findings) -> Agreement:
        """Compare gradient and attention attributions with the single effects found."""
        began = time.perf_counter()
        agreement = compare_attributions(self._gradients.report(), findings.singles)
        self.store.add_cost(self.run_id, "validate", wall_seconds=time.perf_counter() - began)
        for reason in agreement.missing:
            self.store.add_event(self.run_id, "note", reason.sentence)
        return agreement

    def evaluate(self, masks: Masks, phase: str, round_number: int, explorer: Explorer | None = None, *, slopes: bool = False) -> Values:
        """Return the values of masks (bool, `(m, n)`): from the store if it has them (with `slopes`: and their slopes), otherwise measured and stored."""
        began = time.perf_counter()
        # Unique masks are in lexicographic order: neighbours share long prefixes, which the models' prefix trees reuse.
        every = pack(masks)
        first, place = first_of_each(every)
        packed = every[first]
        asked = Round(phase, round_number, packed, self.backend.info.n, slopes)
        if not self.backend.remembers:
            self._look_up(asked)
        self._tally.begin(phase, len(packed))
        self._tally.add(asked.reused, reused=True)
        self._report(phase=phase, **self._tally.figures())
        try:
            self._measure(asked, explorer)
        finally:
            self._tally.pause()
            self.store.add_cost(self.run_id, phase, wall_seconds=time.perf_counter() - began)
        return asked.values[place]

    def _look_up(self, asked: "Round") -> None:
        """Fill in the values that the store has, if slopes are wanted only those with slopes."""
        masks, game_id = asked.masks(slice(None)), self.store.game_id(self.run_id)
        asked.values[:] = self.store.known(game_id, masks)
        if asked.slopes:
            asked.values[np.isnan(self.store.slopes(game_id, masks)).any(axis=(1, 2))] = np.nan
        found = np.flatnonzero(~np.isnan(asked.values))
        asked.known = asked.reused = len(found)
        self.store.add_reused(self.run_id, asked.phase, masks[found], in_round=asked.number, positions=found.astype(np.int32))

    def _measure(self, asked: "Round", explorer: Explorer | None) -> None:
        """Fill in the missing values; each batch is stored as soon as it is measured."""
        missing = np.flatnonzero(np.isnan(asked.values))
        for answer in self.backend.measure(batches(self.backend, asked.packed, missing, asked.phase, asked.number, slopes=asked.slopes)):
            rows = answer.batch.positions[answer.rows]
            masks, measurement = asked.masks(rows), answer.measurement
            asked.values[rows] = self._checked(masks, measurement.values)
            asked.known += len(rows)
            outputs = self._checked_outputs(masks, measurement.outputs)
            self._note(measurement.notes)
            if not answer.stored:
                self.store.add_evaluations(
                    self.run_id,
                    asked.phase,
                    masks,
                    asked.values[rows],
                    in_round=asked.number,
                    positions=rows,
                    tokens=measurement.tokens,
                    seconds=measurement.seconds,
                    outputs=outputs,
                    slopes=checked_slopes(self.backend.info, masks, measurement.slopes) if asked.slopes else None,
                )
            self._tally.add(len(rows), reused=answer.reused)
            if explorer is not None:
                self._preview(explorer, asked)
            self._report(**self._tally.figures())
            if not answer.stored:  # a backend that stores what it measures ends by itself, after the batches under way
                self._stop_if_cancelled()

    def _note(self, notes: Sequence[str]) -> None:
        """Record remarks on how masks were measured, each once."""
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                self.store.add_event(self.run_id, "note", note)

    def _stop_if_cancelled(self) -> None:
        if self.cancelled():
            raise InterruptedRunError.of(self.run_id, "cancelled")

    def _checked_outputs(self, masks: Masks, outputs: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Outputs (float64, `(m, queries)`) of a game that has queries; EvaluationError as for values, naming the query."""
        queries = self.backend.info.queries
        if not queries:
            return None
        if outputs is None or outputs.shape != (len(masks), len(queries)):
            raise ValueError(f"a game of {len(queries)} queries gave outputs of shape {None if outputs is None else outputs.shape} for {len(masks)} masks")
        for query, column in zip(queries, outputs.T, strict=True):
            try:
                self._checked(masks, column)
            except EvaluationError as error:
                raise EvaluationError(f"query {query.label}: {error}") from None
        return outputs

    def _checked(self, masks: Masks, values: Values) -> Values:
        try:
            return check_finite(masks, values)
        except EvaluationError as error:
            worst = np.flatnonzero(~masks[np.flatnonzero(~np.isfinite(values))[0]])
            removed = labels(self.backend.info.components, worst[:12].tolist())
            raise EvaluationError(f"{error} ({removed}{' …' if len(worst) > 12 else ''})") from None

    def _preview(self, explorer: Explorer, asked: "Round") -> None:
        known = len(explorer.values) + asked.known
        if time.perf_counter() - self._exploring_since < PREVIEW_SECONDS or known < self._preview_at:
            return
        self._preview_at = int(PREVIEW_GROWTH * known)
        now = np.flatnonzero(~np.isnan(asked.values))
        total = len(explorer.values) + len(now)
        some = np.arange(total)
        if total > PREVIEW_ROWS:
            some = np.sort(np.random.default_rng(self.spec.seed).choice(total, PREVIEW_ROWS, replace=False))
        earlier, now = some[some < len(explorer.values)], now[some[some >= len(explorer.values)] - len(explorer.values)]
        r2 = explorer.preview(np.concatenate([explorer.masks[earlier], asked.masks(now)]), np.concatenate([explorer.values[earlier], asked.values[now]]))
        self._report(r2=r2)

    def _report(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # pyright: ignore[reportArgumentType]  the names are fields of Progress
        self.report(self.progress)


@dataclass
class Round:
    """One round's distinct masks, packed, and their values (float64, `(m,)`, NaN while unknown); `known` counts the values that are there, `reused` those of them that the store had.

    `slopes`: they are measured with slopes.
    """

    phase: str
    number: int
    packed: NDArray[np.uint8]
    n: int
    slopes: bool = False
    values: Values = field(init=False)
    known: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.values = np.full(len(self.packed), np.nan)

    def masks(self, rows: Any) -> Masks:
        """The masks of some rows, bool `(m, n)`."""
        return unpack(self.packed[rows], self.n)


def ends_of(n: int) -> Masks:
    """The masks that keep everything and nothing: bool `(2, n)`."""
    return np.stack([np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)])


def start_explorer(spec: RunSpec, info: GameInfo) -> Explorer:
    """Start the spec's explorer on this game. UserError if its budget is too small, or if there are fewer than two components."""
    if info.n < 2:
        raise UserError("components", info.n, "is too few, as interactions need at least two", "choose a smaller unit or a longer input")
    labelled = [component.label for component in info.components]
    return explorer_of(spec.explorer).start(info.n, spec.seed, labels=labelled, keep=spec.lens.default_keep, focus=spec.lens.default_focus)
