"""Runs in the calling process, without Ray, one batch at a time."""

import functools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from raysp.blobs import blobs_from
from raysp.errors import UserError
from raysp.game import Game, Measurement
from raysp.gradients import GradientReport
from raysp.home import store_path
from raysp.interrupts import interrupted_by_termination
from raysp.lenses import build_game
from raysp.masks import Masks, unpack
from raysp.runs.backend import Answer, Batch
from raysp.runs.calibration import continued_lens
from raysp.runs.progress import Watch, WatchAll
from raysp.runs.result import Result, read_result
from raysp.runs.run import Run
from raysp.runs.slopes import SlopeSample, sample_slopes
from raysp.runs.state import RunRequest
from raysp.specs.run import AnyLens, RunSpec
from raysp.store import Store
from raysp.validation.numeric_noise import NoiseSample

#: More threads than this for each core only wait for each other, and some machines refuse to start them, which ends the process.
THREADS_PER_CORE = 4


class Engine(Protocol):
    """Where specs run: this process, or a Ray cluster. A context manager, so that models stay resident across runs."""

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec to its end, reporting progress to `watch`."""
        ...

    def run_all(self, requests: Sequence[RunRequest], watch: WatchAll | None = None) -> Generator[Result]:
        """Yield the answers of several runs in this order. `watch` is told the number of the run as well."""
        ...


@dataclass
class LocalEngine(AbstractContextManager["LocalEngine"]):
    """An engine that runs specs in the calling process, one batch at a time."""

    _stores: dict[Path, Store] = field(default_factory=dict)

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec here; as `Engine.run`."""
        path = store_path(spec.store)
        if path not in self._stores:
            self._stores[path] = Store.open(path)
        store = self._stores[path]
        if spec.threads is not None and spec.lens.uses_torch:
            from raysp.models.threads import set_threads

            cores = os.cpu_count() or 1
            if spec.threads > THREADS_PER_CORE * cores:
                raise UserError("threads", spec.threads, f"is too many for the {cores} cores of this machine", f"give at most {THREADS_PER_CORE * cores}")
            set_threads(spec.threads)
        with interrupted_by_termination(), blobs_from(store.blob):
            backend = local_backend(continued_lens(spec.lens, store, run_id))
            Run(spec, backend, store, run_id, set_name, watch or (lambda _: None)).execute()
        return read_result(store, run_id)

    def run_all(self, requests: Sequence[RunRequest], watch: WatchAll | None = None) -> Generator[Result]:
        """Run specs here, one after the other; as `Engine.run_all`."""
        for number, request in enumerate(requests):
            yield self.run(request.spec, request.run_id, request.set_name, functools.partial(watch, number) if watch else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()


def local_backend(lens: AnyLens) -> "LocalBackend":
    """A backend that builds the lens's game in this process. UserError as `build_game`."""
    return LocalBackend(build_game(lens))


class LocalBackend:
    """A backend that measures a game in this process."""

    workers = together = 1
    remembers = False

    def __init__(self, game: Game) -> None:
        self.game, self.info = game, game.info

    def measure(self, batches: Iterable[Batch]) -> Iterator[Answer]:
        """Measure one batch after the other."""
        for batch in batches:
            yield Answer(batch, np.arange(len(batch.packed)), self.game.measure(unpack(batch.packed, self.info.n), slopes=batch.slopes))

    def rebuild(self, lens: AnyLens) -> None:
        """As `Backend.rebuild`."""
        self.game = build_game(lens)
        self.info = self.game.info

    def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:
        """As `sample_noise`."""
        from raysp.lenses.numeric_noise import sample_noise

        return sample_noise(lens, self.game, masks, first)

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """As `Game.gradient_report`."""
        return self.game.gradient_report(max_order)

    def slope_sample(self, masks: Masks) -> SlopeSample:
        """As `sample_slopes`."""
        return sample_slopes(self.game, masks)
