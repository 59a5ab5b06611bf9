"""Where specs run: in the calling process, or on a Ray cluster, which is imported only then."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from raysp.errors import UserError
from raysp.runs.local import Engine, LocalEngine
from raysp.runs.parts import PlannedRun, new_run_id, parts, set_name
from raysp.runs.progress import Progress, Watch
from raysp.runs.result import Result
from raysp.specs.run import RunSpec, resolve_paths


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


def run_parts(
    wanted: list[PlannedRun], *, watch: Callable[[int, Progress], None] | None = None, set_name: str | None = None, run_id: str | None = None
) -> Iterator[tuple[PlannedRun, Result]]:
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
