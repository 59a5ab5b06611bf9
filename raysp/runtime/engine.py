"""Where specs run: in the calling process or on a Ray cluster. Ray is imported only for the latter."""

import contextlib
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from raysp.errors import UserError
from raysp.notebooks.progress import watching, watching_all
from raysp.runs.local import Engine, LocalEngine
from raysp.runs.parts import PlannedRun, new_run_id, new_run_ids, parts, set_name
from raysp.runs.progress import Watch, WatchAll
from raysp.runs.result import Result
from raysp.runs.state import RunRequest
from raysp.runs.workplace import Workplace, local_workplace
from raysp.specs.run import RunSpec, resolve


def engine(spec: RunSpec) -> AbstractContextManager[Engine]:
    """The place where a spec asks to be run."""
    if spec.local:
        return LocalEngine()
    from raysp.runtime.client import RayEngine

    return RayEngine()


@contextmanager
def workplace(path: Path, payer: str, *, local: bool, reading: bool = False) -> Generator[Workplace]:
    """Where a plan, a prediction or an action on a finished run is carried out: this process if `local`, otherwise a cluster.

    `path` is the store, and `payer` the run (or other payer) whose evaluations it is. With `reading`, a store that another process writes is only read if `local`.
    """
    if local:
        with local_workplace(path, reading=reading) as place:
            yield place
        return
    from raysp.runtime.client import RayEngine

    with RayEngine() as cluster, cluster.workplace(path, payer) as place:
        yield place


def run(spec: RunSpec, *, watch: Watch | None = None, run_id: str | None = None) -> Result:
    """Answer one question: evaluate, explore, validate, store.

    With the `run_id` of a run that was interrupted or failed, it continues from what is stored. UserError for a mistake in the spec,
    EvaluationError for values that are not finite; in either case what was evaluated stays stored. Without a `watch`, a notebook shows the progress.
    """
    if spec.examples is not None or spec.repeat_on:
        raise UserError("examples" if spec.examples else "repeat_on", spec.examples or list(spec.repeat_on), "asks for several runs", "use raysp.run_all(spec)")
    resolved = resolve(spec)
    with watching(watch) as told, engine(resolved) as place:
        return place.run(resolved, run_id or new_run_id(), None, told)


def run_all(spec: RunSpec) -> list[Result]:
    """Run all that a spec asks for on the same resident models, on a cluster all at the same time: its examples, or the question followed by its repeats."""
    wanted = parts(spec)
    with watching_all([part.label for part in wanted]) as told:
        return [result for _, result in run_parts(wanted, watch=told, set_name=set_name(spec))]


def run_parts(
    wanted: list[PlannedRun], *, watch: WatchAll | None = None, set_name: str | None = None, run_id: str | None = None
) -> Iterator[tuple[PlannedRun, Result]]:
    """Run several specs on the same resident models, on a cluster all at the same time, and yield each answer in its turn.

    `run_id` is that of the first, if it continues an earlier run. A UserError names the spec that it is about; what the others evaluated is stored.
    """
    ids = new_run_ids(len(wanted))
    requests = [RunRequest(part.spec, run_id if run_id and i == 0 else ids[i], set_name) for i, part in enumerate(wanted)]
    with engine(wanted[0].spec) as place, contextlib.closing(place.run_all(requests, watch)) as answers:
        for part in wanted:
            try:
                result = next(answers)
            except UserError as error:
                which = f"{part.label}, {error.field}" if len(wanted) > 1 else error.field
                raise error.about(which) from None
            yield part, result
