"""Games whose evaluations are trainings, as Ray Tune trials: each takes a block of batches, and reports every batch as soon as it is trained.

One experiment lasts as long as its backend. Our searcher hands out blocks as trials ask for them: half of a worker's share of what is left, so that
early blocks are long (a trial costs more than a batch) and late ones short (nobody waits for a long straggler). Actors are reused from trial to trial
and kept from round to round, so a model is loaded, and its frozen part run, once per actor rather than once per block.

Nothing is restored from Tune's own files, which are pickles: what a trial reports is stored at once, and a run that starts again asks only for what is
missing. There are therefore no checkpoints, and Tune writes into a temporary folder that is removed with the experiment. For the same reason Tune does
not retry a trial that died (it would train the whole block again): what it had not reported goes into the next blocks.

Trials' actors also describe the game and compute its gradients. An evaluator beside them would hold the model a second time, and without a share of the
GPU it would choose another device, another dtype and so another game.
"""

import contextlib
import itertools
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks, pack
from raysp.runtime.desk import Desk, Lost, Task
from raysp.runtime.evaluator import Evaluator
from raysp.runtime.pieces import ADVICE, Piece, Pieces
from raysp.runtime.pool import ATTEMPTS, Cancelled, never
from raysp.runtime.portable import portable
from raysp.runtime.shape import PLACEMENT_SECONDS, Shape, unplaceable
from raysp.specs.lenses import ModelOptions, with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

#: How often an idle actor asks for work; each request costs the scheduler some 4 ms.
IDLE_SECONDS = 0.5
#: Tune waits 5 seconds for its actors at the end, and 10 more before it kills them.
CLOSING_SECONDS = 30.0
#: Characters of an error's text that are shown.
SHOWN_OF_AN_ERROR = 500
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no JSON, CSV and TensorBoard files per trial
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # `measure` raises errors
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table whatever its verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths mean the same in every process
}


class Retraining(tune.Trainable):
    """An actor for trials: an evaluator that answers one task of its block per step."""

    def __repr__(self) -> str:
        """The name that the Ray dashboard shows."""
        return "raysp:retraining"

    def setup(self, config: dict[str, Any], lens: AnyLens | None = None, threads: int | None = None) -> None:
        """Take a block. Nothing here can fail: the first step builds the game, and its error is an answer."""
        assert lens is not None
        self._lens = lens
        self._evaluator = Evaluator("raysp:retraining", threads)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another block, keeping the game."""
        self._waiting = deque[Task](new_config["block"].tasks)
        self.config = {}  # it would be returned with every result
        return True

    def step(self) -> dict[str, Any]:
        """The next task's number with its answer or the error that it raised; for an empty block nothing, after `IDLE_SECONDS`."""
        if not self._waiting:
            time.sleep(IDLE_SECONDS)
            return {}
        task = self._waiting.popleft()
        lens = self._lens if task.dtype is None else with_dtype(self._lens, task.dtype)
        try:
            answer = getattr(self._evaluator, task.method)(lens.key, lens, *task.arguments)
        except Exception as error:  # noqa: BLE001  raised where the task was asked for
            return {"number": task.number, "error": portable(error, "In a trial's actor"), "done": True}
        return {"number": task.number, "answer": answer, "done": not self._waiting}


class Blocks(Searcher):
    """What Tune asks for the next trial."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> Any:
        """A block, None if there is none for now, or the end of the experiment."""
        block = self._desk.give(trial_id)
        if self._desk.closed:
            return Searcher.FINISHED
        return {"block": block} if block else None

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Accept any limit: the desk keeps its own count."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `Courier` tells the desk, and knows the error."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: everything is in the store."""


class Courier(tune.Callback):
    """Tells the desk what happens to trials."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.folder: Path | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial has an actor."""
        self.folder = Path(trial.local_path).parents[1]
        self._desk.begun(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:  # noqa: ARG002
        """A task is done. Its answer is removed from what Tune keeps."""
        if "number" in result:
            self._desk.came(trial.trial_id, result["number"], result.pop("answer", None), result.pop("error", None))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A block is done."""
        self._desk.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial lost its actor."""
        self._desk.ended(trial.trial_id, _last_words(trial))


class Closing(tune.Stopper):
    """Stops idle trials when there is work, and the experiment when the desk is closed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether a trial should stop. One with tasks ends by itself."""
        return self._desk.recalls(trial_id)

    def stop_all(self) -> bool:
        """Whether the experiment should stop."""
        return self._desk.closed


class TuneBackend:
    """One game on trials, as the backend of a run. It must be closed, which releases what it took of the cluster.

    Leaving a round of `measure` before its end closes the backend as well, and so does an error; trials under way are stopped at once.
    """

    def __init__(self, shape: Shape, lens: AnyLens, cancelled: Cancelled = never) -> None:
        self.workers = shape.count
        self._cancelled = cancelled
        self._numbers = itertools.count()
        self._desk = Desk(shape.count)
        self._thread = threading.Thread(target=_experiment, args=(self._desk, shape, lens), name="tune", daemon=True)
        self._thread.start()
        self._dtype: str | None = None
        self.rebuild(lens)

    def rebuild(self, lens: AnyLens) -> None:
        """As `Backend.rebuild`, for the trials' lens in another dtype. One actor resolves dtype `auto`, and all are given the result."""
        self._dtype = lens.dtype if isinstance(lens, ModelOptions) else None
        self.info: GameInfo = self._call("describe")
        self._dtype = self.info.description.get("dtype")

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:  # noqa: ARG002  the lens is its own
        """As `sample_noise`, in one of the actors."""
        return self._call("noise_sample", self.info.fingerprint, pack(masks), first)

    @property
    def retried(self) -> int:
        """How many batches were lost with their actor and measured again."""
        return self._desk.retried

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the game, as `Game.gradient_report`."""
        return self._call("gradient_report", self.info.fingerprint, max_order)

    def measure(self, batches: Sequence[Masks]) -> Iterator[tuple[int, slice, Measurement]]:
        """As `Backend.measure`. Raises what the game raised, and EvaluationError, once all else is measured, that names a mask which every actor died of."""
        pieces, asked, last = Pieces([len(masks) for masks in batches]), dict[int, Piece](), ""
        with self._closed_if_left(asked):
            while pieces.unfinished:
                while piece := pieces.next():
                    asked[self._put("measure", self.info.fingerprint, pack(batches[piece.batch][piece.rows]))] = piece
                number, answer = self._next()
                piece = asked.pop(number)
                if isinstance(answer, Lost):
                    last = answer.reason
                    pieces.lose(piece)
                elif pieces.finish(piece):
                    yield piece.batch, piece.rows, answer
        pieces.check(batches, self.info, last)

    def close(self) -> None:
        """End the experiment and release what it took."""
        self._desk.close()
        self._thread.join(CLOSING_SECONDS)

    def _call(self, method: str, *arguments: Any) -> Any:
        """The answer to a single task, asked again if its actor died."""
        asked, answer = dict[int, None](), Lost("")
        with self._closed_if_left(asked):
            for _ in range(ATTEMPTS):
                asked[self._put(method, *arguments)] = None
                number, answer = self._next()
                del asked[number]
                if not isinstance(answer, Lost):
                    return answer
            raise EvaluationError(f"the training actor died {ATTEMPTS} times when asked for `{method}`, last with {answer.reason}; {ADVICE}")

    @contextlib.contextmanager
    def _closed_if_left(self, asked: dict[int, Any]) -> Generator[None]:
        """Close the backend if the block is left while tasks are `asked` but not answered."""
        try:
            yield
        finally:
            if asked:
                self.close()

    def _put(self, method: str, *arguments: Any) -> int:
        """Put a task on the desk; its number."""
        task = Task(next(self._numbers), method, arguments, self._dtype)
        self._desk.ask([task])
        return task.number

    def _next(self) -> tuple[int, Any]:
        """The next task that was answered, with the answer. UserError if no actor can be placed, InterruptedRunError once cancelled or stopped."""
        deadline = time.monotonic() + PLACEMENT_SECONDS
        while (found := self._desk.answer()) is None:
            if self._cancelled() or not self._thread.is_alive():
                raise InterruptedRunError("the trainings were stopped; those that had finished are stored")
            if self._desk.running:
                deadline = time.monotonic() + PLACEMENT_SECONDS
            elif time.monotonic() > deadline:
                raise unplaceable(self.workers)
        return found


def _experiment(desk: Desk, shape: Shape, lens: AnyLens) -> None:
    """Run trials until the desk is closed. Any other end is raised in whoever waits for an answer."""
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it complains about the files that it was told not to write
    courier = Courier(desk)
    with tempfile.TemporaryDirectory(prefix="raysp-tune-", ignore_cleanup_errors=True) as folder:
        try:
            _tuner(desk, courier, shape, lens, folder).fit()
        except Exception as error:  # noqa: BLE001
            desk.fail(error if isinstance(error, UserError | EvaluationError) else _ended(error))
        finally:
            if courier.folder is not None:
                shutil.rmtree(courier.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # experiments that began in the same second share it
                    courier.folder.parent.rmdir()


def _tuner(desk: Desk, courier: Courier, shape: Shape, lens: AnyLens, folder: str) -> tune.Tuner:
    # Tune registers trainables by name: two experiments must not share one.
    name = f"raysp-{secrets.token_hex(4)}"
    bundle = {{"num_cpus": "CPU", "num_gpus": "GPU"}[what]: share for what, share in shape.resources}
    trainable = tune.with_resources(tune.with_parameters(Retraining, lens=lens, threads=shape.threads), tune.PlacementGroupFactory([bundle]))
    trainable.__name__, trainable.__qualname__ = name, Retraining.__qualname__
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=Blocks(desk), num_samples=-1, max_concurrent_trials=shape.count, reuse_actors=True),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            callbacks=[courier],
            stop=Closing(desk),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )


def _ended(error: Exception) -> EvaluationError:
    """The error for an experiment that ended as a whole: when a node runs out of memory, Tune does not take an actor's death for a trial's failure."""
    text = " ".join((str(error).strip().splitlines() or [""])[0].removeprefix("Caught unexpected exception: ").split())
    found = EvaluationError(
        f"the trainings were ended ({type(error).__name__}: {text[:SHOWN_OF_AN_ERROR]}); those that had finished are stored, and the run can be resumed"
    )
    found.__cause__ = error
    return found


def _last_words(trial: Any) -> str:
    """What ended a trial, in one line."""
    text = ""
    with contextlib.suppress(OSError, TypeError):
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").partition("\n")[2]  # below its date
    return " ".join(text.split())[:SHOWN_OF_AN_ERROR] or "an unknown error"
