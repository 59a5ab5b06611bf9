"""Engines that run specs: one run, or all that a spec asks for (a set of examples, repeats on other models or prompts)."""

import functools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from raysp.datasets.examples import read_examples
from raysp.errors import UserError
from raysp.home import store_path
from raysp.interrupts import interrupted_by_termination
from raysp.runs.result import Result, read_result
from raysp.runs.run import Campaign, LocalBackend, Progress
from raysp.specs.lenses import FeatureLens, MechanisticLens
from raysp.specs.run import RunSpec, resolve_paths
from raysp.store import Store

Watch = Callable[[Progress], None]


class Engine(Protocol):
    """Somewhere to run: this process, or a Ray cluster. A context manager, so that models stay resident over many runs."""

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec to its end, telling `watch` of its progress."""
        ...


@dataclass
class LocalEngine(AbstractContextManager["LocalEngine"]):
    """The calling process: no Ray, one batch at a time."""

    _stores: dict[Path, Store] = field(default_factory=dict)

    def run(self, spec: RunSpec, run_id: str, set_name: str | None = None, watch: Watch | None = None) -> Result:
        """Run a spec here; as `Engine.run`."""
        path = store_path(spec.store)
        if path not in self._stores:
            self._stores[path] = Store.open(path)
        store = self._stores[path]
        if spec.threads is not None and spec.lens.kind != "function":
            from raysp.models.loading import set_threads

            set_threads(spec.threads)
        with interrupted_by_termination():
            Campaign(spec, LocalBackend(spec.lens.build()), store, run_id, set_name, watch or (lambda _: None)).execute()
        return read_result(store, run_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()


def engine(spec: RunSpec) -> AbstractContextManager[Engine]:
    """Where a spec wants to run."""
    if spec.local:
        return LocalEngine()
    from raysp.runtime.client import RayEngine

    return RayEngine()


def run(spec: RunSpec, *, watch: Watch | None = None, run_id: str | None = None) -> Result:
    """Answer one question: evaluate, explore, validate, store.

    With the `run_id` of a run that was interrupted or failed, it goes on from what is stored. UserError for what the spec cannot do,
    EvaluationError for values that are not finite; either way what was evaluated stays.
    """
    if spec.examples is not None or spec.repeat_on:
        raise UserError("examples" if spec.examples else "repeat_on", spec.examples or list(spec.repeat_on), "asks for several runs", "use raysp.run_all(spec)")
    resolved = resolve_paths(spec)
    with engine(resolved) as place:
        return place.run(resolved, run_id or new_run_id(), None, watch)


def run_all(spec: RunSpec) -> list[Result]:
    """All runs that a spec asks for, one after the other on the same resident models: its examples, or the question followed by its repeats."""
    return [result for _, result in run_parts(parts(spec), set_name=set_name(spec))]


def set_name(spec: RunSpec) -> str | None:
    """What the runs of a set of examples are found by."""
    return (spec.name or spec.examples) if spec.examples else None


@dataclass(frozen=True)
class Part:
    """One run of several: its spec and what sets it apart."""

    label: str
    spec: RunSpec


def parts(spec: RunSpec) -> list[Part]:
    """The runs a spec asks for: one an example, or the question itself followed by its repeats."""
    plain = resolve_paths(spec).model_copy(update={"examples": None, "limit": None, "repeat_on": ()})
    if spec.examples is not None:
        if spec.repeat_on:
            raise UserError("repeat_on", list(spec.repeat_on), "does not go with examples", "repeat one example at a time")
        return [Part(label, plain.model_copy(update={"lens": lens})) for label, lens in read_examples(spec.examples, _feature(spec), spec.limit)]
    return [Part("the question", plain), *(_repeat(plain, wish) for wish in spec.repeat_on)]


def run_parts(
    wanted: list[Part], *, watch: Callable[[int, Progress], None] | None = None, set_name: str | None = None, run_id: str | None = None
) -> Iterator[tuple[Part, Result]]:
    """Run several specs one after the other on the same resident models, handing over each answer as it comes.

    `run_id` is that of the first, where it is an earlier run to go on with. A UserError says which of them it is about; those before it are stored.
    """
    with engine(wanted[0].spec) as place:
        for i, part in enumerate(wanted):
            named = run_id if i == 0 and run_id else new_run_id()
            try:
                result = place.run(part.spec, named, set_name, functools.partial(watch, i) if watch else None)
            except UserError as error:
                which = f"{part.label}, {error.field}" if len(wanted) > 1 else error.field
                raise UserError(which, error.value, error.problem, error.mend) from None
            yield part, result


def new_run_id() -> str:
    """A run's name: sorts by time, is typed easily and does not collide."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def _repeat(spec: RunSpec, wish: str) -> Part:
    what, _, value = wish.partition(":")
    if what not in {"model", "prompt"} or not value:
        raise UserError("repeat_on", wish, "is not understood", "write model:NAME or prompt:TEXT")
    return Part(wish, resolve_paths(spec.model_copy(update={"lens": _varied(spec).model_copy(update={what: value})})))


def _varied(spec: RunSpec) -> FeatureLens | MechanisticLens:
    if not isinstance(spec.lens, FeatureLens | MechanisticLens):
        raise UserError("lens", spec.lens.kind, "has no prompt or model to vary", "use the feature or the mechanistic lens")
    return spec.lens


def _feature(spec: RunSpec) -> FeatureLens:
    if not isinstance(spec.lens, FeatureLens):
        raise UserError(
            "examples", spec.examples, f"are for the feature lens, and this one is {spec.lens.kind}", "give a mechanistic lens its prompts as prompts"
        )
    return spec.lens
