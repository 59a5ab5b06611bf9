"""Training recipes searched by Ray Tune: each trial measures one recipe step by step, and ASHA (Li et al., MLSys 2020) stops the poor ones early.

A trial knows nothing of where its trainings run: they are opened by its `Place`, which also states what the trial takes of the cluster. On a cluster a trial takes
no core and no GPU: its trainings are orders that the evaluators measure beside all other runs. In a Ray of its own it trains by itself, on what an evaluator would
get. Tune writes into a temporary folder, and nothing is restored from it.
"""

import contextlib
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from raysp.actions.recipe_trials import LocalTrainings, Trainings, layers_of, observe
from raysp.actions.recipes import STEPS, WORST, Candidate, Choice, Evidence, candidates, choose
from raysp.blobs import blobs_from
from raysp.datasets.content import Content, portable_lens
from raysp.home import store_path
from raysp.interrupts import interrupted_by_termination
from raysp.runs.progress import Progress, Watch
from raysp.runs.stored_game import RECIPES
from raysp.runtime.client import Client, RayEngine
from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.portable import portable
from raysp.runtime.service_trainings import ServiceTrainings, shared_priority
from raysp.runtime.shape import Shape, choose_shape
from raysp.runtime.store_proxy import StoreProxy
from raysp.specs.lenses import DataLens
from raysp.specs.run import RunSpec

#: How often the thread that waits for the search looks whether it was interrupted, and how long a search that is interrupted may take to end.
POLL_SECONDS, CLOSING_SECONDS = 0.2, 30.0
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no JSON, CSV and TensorBoard files per trial
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # errors are raised by the search
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody reads its snapshots
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table whatever its verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths mean the same in every process
}
#: What an actor that waits for others takes of the cluster: Tune asks Ray for a place, and Ray has none for what takes nothing. A byte is always there.
NEXT_TO_NOTHING = (("memory", 1.0),)
Open = Callable[[], Trainings]


@dataclass(frozen=True)
class Place:
    """Where trials run: how they open their trainings, how many run at once, what each takes of the cluster, and its CPU threads (None: as it starts with).

    `content` is what the files of the lens hold, for trials that train by themselves.
    """

    open: Open
    concurrent: int
    resources: tuple[tuple[str, float], ...]
    threads: int | None = None
    content: Content = field(default_factory=dict[str, bytes])


@contextlib.contextmanager
def embedded() -> Generator[None]:
    """A Ray of this process alone within the block, whatever clusters there are; the one that it is connected to, if there is one."""
    if ray.is_initialized():
        yield
        return
    ray.init(address="local", namespace=NAMESPACE, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def here(spec: RunSpec, content: Content) -> Place:
    """Trials that train by themselves, each on what an evaluator would get."""
    shape: Shape = choose_shape(spec)
    return Place(LocalTrainings, shape.count, shape.resources, shape.threads, content)


@contextlib.contextmanager
def beside_runs(spec: RunSpec, content: Content, client: Client) -> Generator[tuple[Place, Callable[[], None]]]:
    """Trials whose trainings are orders of the cluster's scheduler, one for each evaluator, and a function that ends those that are under way.

    Trials together have the share of one run. At the end of the block nothing is ordered any more. UserError for what the cluster cannot hold.
    """
    count = max(choose_shape(spec).count, len(client.status().evaluators))
    store, name = store_path(spec.store), f"{RECIPES}:{token_hex(4)}"
    StoreProxy(client.link, store).add_blobs(content.values())
    place = Place(partial(ServiceTrainings, store, name, shared_priority(count)), count, NEXT_TO_NOTHING)
    try:
        yield place, partial(client.end_sessions, name)
    finally:
        client.end_sessions(name)


def search(
    spec: RunSpec,
    lens: DataLens,
    place: Place,
    *,
    trials: int,
    minutes: float | None = None,
    stop: Callable[[], None] = lambda: None,
    watch: Watch = lambda _: None,
) -> list[Evidence]:
    """Measure recipes for a portable data lens, its own first; what is known of each by the end, in the order in which they were started.

    Within a process that is connected to Ray. `stop` is called when trials that are under way should end. UserError for what the lens cannot do;
    KeyboardInterrupt stops the search.
    """
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    watch(Progress("", "loading the model"))
    tried = candidates(lens, trials, spec.seed)
    told = _Told(len(tried), watch)
    with tempfile.TemporaryDirectory(prefix="raysp-tune-", ignore_cleanup_errors=True) as folder:
        tuner = _tuner(spec, lens, place, tried=tried, told=told, folder=folder)
        thread = threading.Thread(target=told.running, args=(tuner,), name="tune", daemon=True)
        thread.start()
        _wait(thread, told, stop, minutes)
    if told.error is not None:
        raise told.error
    return list(told.found.values())


def _wait(thread: threading.Thread, told: "_Told", stop: Callable[[], None], minutes: float | None) -> None:
    """Wait until the thread of a search has ended, and end the search when its time is up, after an error, and when it is interrupted."""
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    try:
        while thread.is_alive() and not told.over:
            thread.join(POLL_SECONDS)
            told.over = told.over or time.monotonic() > until
        stop()
        while thread.is_alive():  # in pieces, as a signal arrives in between
            thread.join(POLL_SECONDS)
    except KeyboardInterrupt:
        told.over = True
        stop()
        thread.join(CLOSING_SECONDS)
        raise


class RecipeTrial(tune.Trainable):
    """The actor of a trial, and of trials after it: the model stays resident."""

    def __repr__(self) -> str:
        """The name that the Ray dashboard shows."""
        return "raysp:recipe"

    def setup(
        self,
        config: dict[str, Any],
        lens: DataLens | None = None,
        keep: float | None = None,
        seed: int = 0,
        place: Place | None = None,
    ) -> None:
        """Take a recipe. Nothing here can fail: the first step builds the game."""
        assert lens is not None
        assert place is not None
        if place.threads is not None:
            from raysp.models.threads import set_threads

            set_threads(place.threads)
        self._steps: Generator[Evidence] | None = None
        self._lens, self._keep, self._seed, self._place = lens, keep, seed, place
        self._layers: int | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another recipe."""
        self.cleanup()
        self._steps = self._observe(new_config["candidate"])
        self.config = {}  # it would be returned with every result
        return True

    def cleanup(self) -> None:
        """Leave the recipe: one that is stopped early has open trainings."""
        if self._steps is not None:
            self._steps.close()

    def _observe(self, candidate: Candidate) -> Generator[Evidence]:
        """The evidence of a recipe, which adapts no more layers than the model has; the lens's own is as its author wrote it."""
        trainings = self._place.open()
        if candidate != Candidate.of(self._lens):
            self._layers = self._layers or layers_of(self._lens, trainings)
            candidate = candidate.within(self._layers)
        yield from observe(self._lens, candidate, trainings, keep=self._keep, seed=self._seed)

    def step(self) -> dict[str, Any]:
        """The next step of the recipe: its evidence so far with the score, or the error of a question that cannot be asked."""
        try:
            with blobs_from(self._place.content.get):
                assert self._steps is not None
                evidence = next(self._steps)
        except Exception as error:  # noqa: BLE001  raised where the search was started
            return {"score": WORST, "error": portable(error, "In a trial's actor"), "done": True}
        return {"score": evidence.score, "evidence": evidence, "done": evidence.complete or evidence.diverged is not None}


class _Told(tune.Callback, tune.Stopper):
    """What trials have told so far. It stops the search after an error, once `over`, and when its time is up."""

    def __init__(self, total: int, watch: Watch) -> None:
        self.found: dict[str, Evidence] = {}
        self.error: BaseException | None = None
        self.over = False
        self._ended, self._total, self._watch = 0, total, watch

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles what it is given, and nobody reads it."""
        return {}

    def running(self, tuner: tune.Tuner) -> None:
        """Run the search to its end."""
        try:
            tuner.fit()
        except Exception as error:  # noqa: BLE001  raised where the search was started
            self.error = self.error or error

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether a trial should stop before its time."""
        return self.over

    def stop_all(self) -> bool:
        """Whether the search should stop."""
        return self.over

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:  # noqa: ARG002
        """A step is done. What it found is removed from what Tune keeps."""
        if (error := result.pop("error", None)) is not None:
            self.error, self.over = (self.error if self.over else error), True  # a trial that was told to end raises, too
        elif (evidence := result.pop("evidence", None)) is not None:
            self.found[trial.trial_id] = evidence
        self._watch(Progress("", "recipes", self._ended, self._total))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial is over."""
        self._ended += 1
        self._watch(Progress("", "recipes", self._ended, self._total))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial's actor died, which others survive."""
        self.on_trial_complete(iteration, trials, trial)


def _tuner(spec: RunSpec, lens: DataLens, place: Place, *, tried: Sequence[Candidate], told: _Told, folder: str) -> tune.Tuner:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it complains about the files that it was told not to write
    keep = getattr(spec.explorer, "keep", None)
    given = tune.with_parameters(RecipeTrial, lens=lens, keep=keep if isinstance(keep, float) else None, seed=spec.seed, place=place)
    bundle = {{"num_cpus": "CPU", "num_gpus": "GPU"}.get(what, what): share for what, share in place.resources}
    trainable = tune.with_resources(given, tune.PlacementGroupFactory([bundle]))
    # Tune registers trainables by name: two searches must not share one.
    name = f"raysp-{token_hex(4)}"
    trainable.__name__, trainable.__qualname__ = name, RecipeTrial.__qualname__
    return tune.Tuner(
        trainable,
        param_space={"candidate": tune.grid_search(list(tried))},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            scheduler=ASHAScheduler(max_t=STEPS, grace_period=1, reduction_factor=2),
            max_concurrent_trials=place.concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder,
            callbacks=[told],
            stop=told,
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )


def choose_recipe(spec: RunSpec, *, trials: int, minutes: float | None = None, watch: Watch = lambda _: None) -> tuple[list[Evidence], Choice | None]:
    """Search a recipe for a data spec where the spec runs, and choose one; None if no recipe could be measured."""
    assert isinstance(spec.lens, DataLens)
    lens, content = portable_lens(spec.lens)
    assert isinstance(lens, DataLens)
    if spec.local:
        with embedded(), interrupted_by_termination():
            found = search(spec, lens, here(spec, content), trials=trials, minutes=minutes, watch=watch)
    else:
        with RayEngine() as cluster, beside_runs(spec, content, cluster.client) as (place, stop):
            found = search(spec, lens, place, trials=trials, minutes=minutes, stop=stop, watch=watch)
    return found, choose(found)
