"""Games whose evaluations are trainings, as Ray Tune trials: each takes a block of batches, and reports every batch as soon as it is trained.

One experiment lasts as long as its backend. A searcher of ours hands out blocks as trials ask for them: half of a worker's fair share of what is
left, so that blocks begin long (a trial costs more than a batch) and end short (nobody waits for one long straggler). Actors are reused from trial
to trial and kept from round to round, so a model is loaded, and the frozen part of it run, once an actor and not once a block.

Nothing is ever restored from Tune's own files, which are pickles: what a trial reported is in the store at once, and a campaign that starts again asks
only for what is not there. So there are no checkpoints, and what Tune writes lies in a temporary folder that goes with the experiment. For the same
reason a trial that died is not retried by Tune (it would train its whole block again): what it had not reported goes into the next blocks.

Everything asked of the game is asked of the trials' actors, its description and its gradients too: an evaluator beside them would hold the model a second
time, and without a share of the GPU it would choose another device, another dtype and so another game.
"""

import contextlib
import itertools
import logging
import os
import pickle
import secrets
import shutil
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.game import GameInfo, Measurement
from raysp.gradients import GradientReport
from raysp.masks import Masks, pack
from raysp.runtime.desk import Desk, Task
from raysp.runtime.evaluator import Evaluator
from raysp.runtime.pool import PLACEMENT_SECONDS, Shape, unplaceable
from raysp.specs.lenses import ModelOptions, with_dtype
from raysp.specs.run import AnyLens
from raysp.validation.numeric_noise import NoiseSample

# How often an actor without work asks for it; every question costs the scheduler some 4 ms.
IDLE_SECONDS = 0.5
# Tune waits 5 seconds for its actors at the end, and 10 more before it kills them.
CLOSING_SECONDS = 30.0
SHOWN_OF_AN_ERROR = 500
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no JSON, CSV and TensorBoard file a trial
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # errors come out of `measure`
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one draws a table however quiet it is told to be
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths mean the same in every process
}


class Retraining(tune.Trainable):
    """An actor of trials: an evaluator that answers one task of its block a step."""

    def __repr__(self) -> str:
        """How the Ray dashboard lists it."""
        return "raysp:retraining"

    def setup(self, config: dict[str, Any], lens: AnyLens | None = None, threads: int | None = None) -> None:
        """Take a block. Nothing here can fail: the game is built by the first step, whose error is an answer."""
        assert lens is not None
        self._lens = lens
        self._evaluator = Evaluator("raysp:retraining", threads)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another block, keeping the game."""
        self._waiting = deque[Task](new_config["block"].tasks)
        self.config = {}  # it would come back with every result
        return True

    def step(self) -> dict[str, Any]:
        """The next task's number with its answer, or with the error that it raised. Nothing, after a while, where the block is empty."""
        if not self._waiting:
            time.sleep(IDLE_SECONDS)
            return {}
        task = self._waiting.popleft()
        lens = self._lens if task.dtype is None else with_dtype(self._lens, task.dtype)
        try:
            answer = getattr(self._evaluator, task.method)(lens.key, lens, *task.arguments)
        except Exception as error:  # noqa: BLE001  raised where it was asked for
            return {"number": task.number, "error": _sent(error), "done": True}
        return {"number": task.number, "answer": answer, "done": not self._waiting}


class Blocks(Searcher):
    """What Tune asks for the next trial."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> Any:
        """A block, nothing for now, or the end."""
        block = self._desk.give(trial_id)
        if self._desk.closed:
            return Searcher.FINISHED
        return {"block": block} if block else None

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """The desk counts for itself."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `Courier` tells the desk, and knows the error."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store remembers."""


class Courier(tune.Callback):
    """Tells the desk what becomes of trials."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.folder: Path | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial runs."""
        self.folder = Path(trial.local_path).parents[1]
        self._desk.begun(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:  # noqa: ARG002
        """A task is done. The answer is taken out of what Tune keeps."""
        if "number" in result:
            self._desk.came(trial.trial_id, result["number"], result.pop("answer", None), result.pop("error", None))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A block is done."""
        self._desk.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial lost its actor."""
        self._desk.ended(trial.trial_id, _last_words(trial))


class Closing(tune.Stopper):
    """Stops trials that have nothing to do when there is something, and the experiment when the desk is closed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether a trial is to stop. One with tasks ends by itself."""
        return self._desk.recalls(trial_id)

    def stop_all(self) -> bool:
        """Whether all is to stop."""
        return self._desk.closed


class TuneBackend:
    """One game on trials, as a campaign's backend. To be closed, which gives back the cluster's resources.

    A round of `measure` that is left before its end closes it as well, and so does an error; trials under way are stopped at once.
    """

    def __init__(self, shape: Shape, lens: AnyLens, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.workers = shape.count
        self._cancelled = cancelled
        self._numbers = itertools.count()
        self._desk = Desk(shape.count)
        self._thread = threading.Thread(target=_experiment, args=(self._desk, shape, lens), name="tune", daemon=True)
        self._thread.start()
        self._dtype: str | None = None
        self.rebuild(lens)

    def rebuild(self, lens: AnyLens) -> None:
        """As `Backend.rebuild`, for the lens that the trials have in another dtype. One actor resolves dtype `auto`, and all are told what it is."""
        self._dtype = lens.dtype if isinstance(lens, ModelOptions) else None
        [(_, info)] = self._answers([("describe", ())])
        self.info: GameInfo = info
        self._dtype = info.description.get("dtype")

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:  # noqa: ARG002  the lens is its own
        """As `sample_noise`, in one of the actors."""
        return self._ask("noise_sample", pack(masks), first)

    @property
    def retried(self) -> int:
        """How many batches were lost with their actor and measured again."""
        return self._desk.retried

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """What gradients say about the game, as `Game.gradient_report`."""
        return self._ask("gradient_report", max_order)

    def measure(self, batches: Sequence[Masks]) -> Iterator[tuple[int, Measurement]]:
        """Each batch once, as they finish. Raises what the game raised, and EvaluationError for a batch that was lost `ATTEMPTS` times."""
        return self._answers([("measure", (self.info.fingerprint, pack(masks))) for masks in batches])

    def close(self) -> None:
        """End the experiment and give back what it took."""
        self._desk.close()
        self._thread.join(CLOSING_SECONDS)

    def _ask(self, method: str, *arguments: Any) -> Any:
        [(_, answer)] = self._answers([(method, (self.info.fingerprint, *arguments))])
        return answer

    def _answers(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> Iterator[tuple[int, Any]]:
        """Each call's place in the list with its answer, as they come."""
        places = {next(self._numbers): place for place in range(len(calls))}
        self._desk.ask([Task(number, *calls[place], self._dtype) for number, place in places.items()])
        deadline = time.monotonic() + PLACEMENT_SECONDS
        try:
            while places:
                if (found := self._desk.answer()) is not None:
                    yield places.pop(found[0]), found[1]
                elif self._cancelled() or not self._thread.is_alive():
                    raise InterruptedRunError("the trainings were stopped; what they had finished is stored")
                elif self._desk.running:
                    deadline = time.monotonic() + PLACEMENT_SECONDS
                elif time.monotonic() > deadline:
                    raise unplaceable(self.workers)
        finally:
            if places:
                self.close()


def _experiment(desk: Desk, shape: Shape, lens: AnyLens) -> None:
    """Run trials until the desk is closed. Whatever ends it otherwise comes to whoever waits for an answer."""
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it misses the files that it was told not to write
    courier = Courier(desk)
    with tempfile.TemporaryDirectory(prefix="raysp-tune-", ignore_cleanup_errors=True) as folder:
        try:
            _tuner(desk, courier, shape, lens, folder).fit()
        except Exception as error:  # noqa: BLE001
            desk.fail(error if isinstance(error, UserError | EvaluationError) else _ended(error))
        finally:
            if courier.folder is not None:
                shutil.rmtree(courier.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # of experiments begun in the same second
                    courier.folder.parent.rmdir()


def _tuner(desk: Desk, courier: Courier, shape: Shape, lens: AnyLens, folder: str) -> tune.Tuner:
    # Tune keeps trainables by their name: two experiments must not share one.
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


def _sent(error: Exception) -> Exception:
    """An error as it can travel to another process: with its traceback if nobody meant it, as a plain one if it does not survive pickling."""
    if isinstance(error, UserError | EvaluationError):
        return error
    error.add_note(f"In a trial's actor:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  what was pickled just now
    except Exception:  # noqa: BLE001  whatever an exception's own constructor makes of it
        return RuntimeError(f"{type(error).__name__}: {error}\n{error.__notes__[-1]}")
    return error


def _ended(error: Exception) -> EvaluationError:
    """What ended the experiment as a whole, in a line: a node out of memory kills an actor in a way that Tune does not take for a trial's failure."""
    said = " ".join((str(error).strip().splitlines() or [""])[0].removeprefix("Caught unexpected exception: ").split())
    found = EvaluationError(
        f"the trainings were ended ({type(error).__name__}: {said[:SHOWN_OF_AN_ERROR]}); what they had finished is stored, and the run can be resumed"
    )
    found.__cause__ = error
    return found


def _last_words(trial: Any) -> str:
    """What ended a trial, in a line."""
    text = ""
    with contextlib.suppress(OSError, TypeError):
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").partition("\n")[2]  # below its date
    return " ".join(text.split())[:SHOWN_OF_AN_ERROR] or "an unknown error"
