"""Commands of the service: `up`, `down`, `status`, and what is done with runs that it executes: `submit`, `watch`, `pause`, `cancel`, `resume`."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysp.commands.consent import AllowPickle, AllowRemoteCode
from raysp.commands.run import Json, SpecFile, Store

if TYPE_CHECKING:
    from raysp.runs.state import Desired, RunState, ServiceStatus
    from raysp.runtime.client import Client
    from raysp.runtime.service import Service

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="A run's id or the beginning of it, its name, or last; of runs submitted together, what their ids begin with."),
]
Priority = Annotated[int, typer.Option(help="0 to 9; the share of the cluster doubles with each step.")]


def up(  # noqa: PLR0917  the options of a command
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray head to join. Default RAY_ADDRESS, otherwise a head is started on this machine.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="A YAML file of what questions may do: see `raysp docs cluster`. Default everything.")] = None,
    host: Annotated[
        str | None, typer.Option(help="The address at which its page and REST interface listen. Default 127.0.0.1, which only this machine reaches.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Their port. Default 8270, or any that is free where that is taken.")] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Start the service, which executes submitted runs whatever becomes of the commands that talk to it. It goes on with runs that are not finished."""
    from raysp.commands import display
    from raysp.runtime import service

    running, fresh = service.up(address, store, policy, host, port)
    if json:
        display.print_json({"address": running.address, "store": running.store, "pid": running.pid, "url": running.web, "started": fresh})
        return
    display.out.print(f"The service {'runs' if fresh else 'was running already'} at {running.address}, with its store in {running.store}.", markup=False)
    if running.web:
        display.out.print(f"Its page is at {running.web}; `raysp token` prints the token with which to log in.", markup=False)
    display.out.print("`raysp submit SPEC.yaml` gives it a run, `raysp status` shows what it does, `raysp down` ends it.", markup=False)


def token() -> None:
    """Print the token of the service's page and REST interface."""
    from raysp.runtime.token import web_token

    typer.echo(web_token())


def down(json: Json = False) -> None:
    """End the service that `raysp up` started, and nothing else. Runs that are not finished are interrupted."""
    from raysp.commands import display
    from raysp.runtime import service

    ended, interrupted = service.down()
    if json:
        display.print_json({"address": ended.address if ended else None, "interrupted": interrupted})
        return
    display.out.print(f"The service at {ended.address} has ended." if ended else "No service was running.", markup=False)
    for run_id in interrupted:
        display.out.print(f"run {run_id} was interrupted; `raysp resume {run_id}` continues from what is stored", markup=False)


def status(json: Json = False) -> None:
    """Show the service: its evaluators, what each has in memory, and the runs that it executes or that wait."""
    from raysp.commands import display
    from raysp.runtime.client import attached, wanted_service
    from raysp.runtime.service import read_service

    served = read_service()
    if not wanted_service():
        lost = served is not None
        if json:
            display.print_json({"running": False, "address": served.address if served else None})
        else:
            text = (
                "The service has died; `raysp up` starts it again, and it goes on with its runs." if lost else "No service is running; `raysp up` starts one."
            )
            display.out.print(text, markup=False)
        return
    with attached() as client:
        found = client.status()
        runs = [state for state in client.states() if not state.ended]
        address = client.address
    if json:
        display.print_json({"running": True, "address": address, **asdict(found), "unfinished": [_told(state) for state in runs]})
    else:
        _print_status(found, runs, address, served)


def submit(
    path: SpecFile,
    *,
    priority: Priority = 5,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the runs and print their answers. Ctrl-C stops following; the runs go on.")] = False,
    address: Annotated[str | None, typer.Option(help="http://HOST:PORT of a cluster's dashboard, to send the question there as a Ray job.")] = None,
    when_stopped: Annotated[
        str | None, typer.Option(help="With --address: pause, cancel or continue the runs when the job is stopped (`ray job stop`). Default pause.")
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Give the service a question from a spec file, or all questions of a set of examples at once, and return."""
    from raysp.commands import display, job
    from raysp.commands.run import overridden
    from raysp.errors import UserError
    from raysp.runs.parts import new_run_ids, parts, set_name
    from raysp.runs.state import RunRequest
    from raysp.runtime.client import attached
    from raysp.specs.run import load_spec

    spec = overridden(load_spec(path), store=store)
    if address is not None:
        job.send(spec, address, priority=priority, follow=follow, when_stopped=when_stopped or "pause", json=json)
        return
    if when_stopped is not None:
        raise UserError("when_stopped", when_stopped, "is for jobs", "give --address too, or leave it out: what is submitted here depends on no process")
    wanted = parts(spec)
    ids = new_run_ids(len(wanted))
    requests = [RunRequest(part.spec, run_id, set_name(spec), priority) for part, run_id in zip(wanted, ids, strict=True)]
    with attached() as client:
        client.submit(requests)
        if follow:
            if not json:
                _print_submitted(ids)
            _follow(client, ids, json=json)
            return
        states = client.states(ids)
    if json:
        display.print_json({"runs": [{"label": part.label, **_told(state)} for part, state in zip(wanted, states, strict=True)]})
    else:
        _print_submitted(ids)


def watch(run_id: Runs, store: Store = None, json: Json = False) -> None:
    """Follow runs of the service to their end and print their answers. Ctrl-C stops following; the runs go on."""
    from raysp.runtime.client import attached

    with attached() as client:
        _follow(client, _found(client, run_id, store), json=json)


def cancel(run_id: Runs, store: Store = None, json: Json = False) -> None:
    """Cancel runs after the batches under way. What was measured stays stored, and `raysp resume` continues from there."""
    _steer(run_id, "cancelled", store, json=json)


def pause(run_id: Runs, store: Store = None, json: Json = False) -> None:
    """Pause runs after the batches under way, until `raysp resume`."""
    _steer(run_id, "paused", store, json=json)


def resume(
    run_id: Annotated[str, typer.Argument(help="A run's id or the beginning of it, its name, or last.")],
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Continue a run that was interrupted, paused, cancelled or failed. Nothing that is stored is evaluated again."""
    from raysp.commands.execute import answer
    from raysp.commands.run import overridden
    from raysp.home import store_path
    from raysp.specs.policy import Consent
    from raysp.specs.run import run_spec
    from raysp.store import Store as Reader

    path = store_path(store)
    with Reader.read(path) as reading:
        row = reading.run_row(reading.find_run(run_id))
    Consent(allow_pickle, allow_remote_code).check(row["run_id"], row["spec"]["lens"])
    if not _resumed(row["run_id"], json=json):
        answer(overridden(run_spec(row["spec"]), store=str(path)), json=json, run_id=row["run_id"])  # the store may have been moved since the run began


def _resumed(run_id: str, *, json: bool) -> bool:
    """Have the service go on with a run that it knows, and follow it. False if there is no service, or if it does not know the run."""
    from raysp.errors import UserError
    from raysp.runtime.client import attached, wanted_service

    if not wanted_service():
        return False
    with attached() as client:
        try:
            client.steer(run_id, "running")
        except UserError:
            return False
        _follow(client, [run_id], json=json)
    return True


def _steer(wanted: Sequence[str], desired: "Desired", store: str | None, *, json: bool) -> None:
    from raysp.commands import display
    from raysp.runtime.client import attached

    with attached() as client:
        states = [client.steer(run_id, desired) for run_id in _found(client, wanted, store)]
    if json:
        display.print_json({"runs": [_told(state) for state in states]})
        return
    for state in states:
        text = f"is {state.status}" if state.status == desired else f"will be {desired} after the batches under way"
        display.out.print(f"run {state.run_id} {text}; `raysp resume {state.run_id}` continues it", markup=False)


def _found(client: "Client", wanted: Sequence[str], store: str | None) -> list[str]:
    """The ids that these words refer to: of runs that the service remembers, otherwise of runs in the store."""
    from raysp.errors import UserError
    from raysp.home import store_path
    from raysp.runs.state import find_runs, states
    from raysp.store import Store as Reader

    known, ids = client.states(), list[str]()
    for word in wanted:
        try:
            found = find_runs(known, word)
        except UserError:
            found = []
        if not found:
            with Reader.read(store_path(store)) as reading:
                found = find_runs(states(reading), word) or [reading.find_run(word)]
        ids += [run_id for run_id in found if run_id not in ids]
    return ids


def _follow(client: "Client", run_ids: Sequence[str], *, json: bool) -> None:
    """Follow runs to their end and print their answers in this order. Raises what ended the first that is not done; the others are followed to their end before."""
    from raysp.commands.follow import print_answers, show_progress

    with _detached(run_ids):
        show_progress(client, run_ids, quiet=json)
    print_answers(client, run_ids, json=json)


@contextmanager
def _detached(run_ids: Sequence[str]) -> Generator[None]:
    """Say that the runs go on if following them is interrupted."""
    from raysp.errors import InterruptedRunError

    try:
        yield
    except KeyboardInterrupt:
        word = _common(run_ids)
        raise InterruptedRunError(f"{'the run goes' if len(run_ids) == 1 else 'the runs go'} on; `raysp watch {word}` follows again") from None


def _common(run_ids: Sequence[str]) -> str:
    """The word that stands for runs that were submitted together."""
    return run_ids[0] if len(run_ids) == 1 else run_ids[0].rpartition("-")[0]


def _print_submitted(run_ids: Sequence[str]) -> None:
    from raysp.commands import display

    word = _common(run_ids)
    what = f"run {word}" if len(run_ids) == 1 else f"{len(run_ids)} runs, {run_ids[0]} to {run_ids[-1]},"
    display.out.print(f"{what} submitted; `raysp watch {word}` follows, `raysp cancel {word}` cancels", markup=False)


def _told(state: "RunState") -> dict[str, Any]:
    """A state as JSON has it."""
    return {name: value for name, value in asdict(state).items() if name != "version"}


def _print_status(found: "ServiceStatus", runs: "Sequence[RunState]", address: str, served: "Service | None") -> None:
    import pyarrow as pa

    from raysp.commands import display

    started = " (started by `raysp up`)" if served is not None and served.address == address else ""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(found.runs.items())) or "none"
    display.out.print(f"raysp {found.version} at {address}{started}; runs: {counts}", markup=False)
    for store in found.stores:
        display.out.print(f"store: {store}", markup=False)
    if found.evaluators:
        display.print_table(
            pa.table(
                {
                    "evaluator": [each.name for each in found.evaluators],
                    "state": [each.state for each in found.evaluators],
                    "node": [each.node for each in found.evaluators],
                    "models": [", ".join(each.resident) for each in found.evaluators],
                }
            )
        )
    if runs:
        display.print_table(
            pa.table(
                {
                    "run": [state.run_id for state in runs],
                    "name": [state.name for state in runs],
                    "priority": [state.priority for state in runs],
                    "state": [state.shown.phase for state in runs],
                    "progress": [display.bar_text(state.shown) for state in runs],
                }
            )
        )
