"""Following runs of a scheduler: their progress, then their answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysp.runtime.client import Client


def show_progress(client: "Client", run_ids: Sequence[str], *, quiet: bool) -> None:
    """Show the progress of runs, as that of one if there are several, until all have ended or are paused."""
    from raysp.commands import display
    from raysp.runs.progress import SetProgress

    together, numbers = SetProgress(list(run_ids)), {run_id: number for number, run_id in enumerate(run_ids)}
    with display.live_bar(quiet=quiet) as bar:
        for state in client.follow(run_ids):
            bar("", together.observe(numbers[state.run_id], state.shown) if len(run_ids) > 1 else state.shown)


def print_answers(client: "Client", run_ids: Sequence[str], *, json: bool) -> None:
    """Print the answers of runs in this order, as JSON only if all have one. Raises what ended the first that is not done."""
    from raysp.commands import display

    results = [_answer(client, run_id) for run_id in run_ids]
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


def _answer(client: "Client", run_id: str) -> Any:
    """The answer of a run, or what ended it."""
    from raysp.errors import EvaluationError, InterruptedRunError, UserError

    try:
        return client.result(run_id)
    except (UserError, EvaluationError, InterruptedRunError) as error:
        return error
