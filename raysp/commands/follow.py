"""Following runs of a service: their progress, then their answers."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from raysp.runs.result import Result
    from raysp.runs.state import RunState


class Followed(Protocol):
    """A service of which runs are followed: that of a cluster, or one elsewhere."""

    def follow(self, run_ids: Sequence[str], /) -> "Iterator[RunState]":
        """The states of these runs now, and again whenever they change, until all have ended or are paused."""
        ...

    def result(self, run_id: str, /) -> "Result":
        """The answer of a run that is done. Raises what ended it otherwise."""
        ...


def follow_to_end(service: Followed, run_ids: Sequence[str], *, json: bool) -> None:
    """Follow runs to their end and print their answers in this order. Raises what ended the first that is not done; the others are followed to their end before."""
    with detached(run_ids):
        show_progress(service, run_ids, quiet=json)
    print_answers(service, run_ids, json=json)


@contextmanager
def detached(run_ids: Sequence[str]) -> Generator[None]:
    """Say that the runs go on if following them is interrupted."""
    from raysp.runs.state import goes_on

    try:
        yield
    except KeyboardInterrupt:
        raise goes_on(run_ids) from None


def show_progress(service: Followed, run_ids: Sequence[str], *, quiet: bool) -> None:
    """Show the progress of runs, as that of one if there are several, until all have ended or are paused."""
    from raysp.commands import display
    from raysp.runs.progress import SetProgress

    together, numbers = SetProgress(list(run_ids)), {run_id: number for number, run_id in enumerate(run_ids)}
    with display.live_bar(quiet=quiet) as bar:
        for state in service.follow(run_ids):
            bar("", together.observe(numbers[state.run_id], state.shown))


def print_answers(service: Followed, run_ids: Sequence[str], *, json: bool) -> None:
    """Print the answers of runs in this order, as JSON only if all have one. Raises what ended the first that is not done."""
    from raysp.commands import display

    results = [_answer(service, run_id) for run_id in run_ids]
    answered = [result for result in results if not isinstance(result, BaseException)]
    if json and len(answered) == len(results):
        told = [display.result_json(result) for result in answered]
        display.print_json(told[0] if len(told) == 1 else {"runs": told})
    elif not json:
        for result in answered:
            display.print_result(result)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _answer(service: Followed, run_id: str) -> Any:
    """The answer of a run, or what ended it."""
    from raysp.errors import EvaluationError, InterruptedRunError, UserError

    try:
        return service.result(run_id)
    except (UserError, EvaluationError, InterruptedRunError) as error:
        return error
