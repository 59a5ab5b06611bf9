"""Where specs run: in the calling process or on a Ray cluster. Ray is imported only for the latter."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from raysp.errors import UserError
from raysp.runs.local import Engine, LocalEngine
from raysp.runs.parts import PlannedRun, new_run_id, parts, set_name
from raysp.runs.progress import Progress, Watch
from raysp.runs.result import Result
from raysp.specs.run import RunSpec, resolve


def engine(spec: RunSpec) -> AbstractContextManager[Engine]:
    """The place where a spec asks to be run."""
    if spec.local:
        return LocalEngine()
    from raysp.runtime.client import RayEngine

    return RayEngine()


def run(spec: RunSpec, *, watch: Watch | None = None, run_id: str | None = None) -> Result:
    """Answer one question: evaluate, explore, validate, store.

    With the `run_id` of a run that was interrupted or failed, it continues from what is stored. UserError for a mistake in the spec,
    EvaluationError for values that are not finite; in either case what was evaluated stays stored.
    """
    if spec.examples is not None or spec.repeat_on:
        raise UserError("examples" if spec.examples else "repeat_on", spec.examples or list(spec.repeat_on), "asks for several runs", "use raysp.run_all(spec)")
    resolved = resolve(spec)
    with engine(resolved) as place:
        return place.run(resolved, run_id or new_run_id(), None, watch)


def run_all(spec: RunSpec) -> list[Result]:
    """Run all that a spec asks for, one after the other on the same resident models: its examples, or the question followed by its repeats."""
    return [result for _, result in run_parts(parts(spec), set_name=set_name(spec))]


def run_parts(
    wanted: list[PlannedRun], *, watch: Callable[[int, Progress], None] | None = None, set_name: str | None = None, run_id: str | None = None
) -> Iterator[tuple[PlannedRun, Result]]:
    """Run several specs one after the other on the same resident models, yielding each answer as it arrives.

    `run_id` is that of the first, if it continues an earlier run. A UserError names the spec that it is about; the runs before it are stored.
    """
    with engine(wanted[0].spec) as place:
        for i, part in enumerate(wanted):
            named = run_id if i == 0 and run_id else new_run_id()
            try:
                result = place.run(part.spec, named, set_name, functools.partial(watch, i) if watch else None)
            except UserError as error:
                which = f"{part.label}, {error.field}" if len(wanted) > 1 else error.field
                raise error.about(which) from None
            yield part, result
