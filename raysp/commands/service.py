"""Commands of the service: `up`, `down`, `status`, and what is done with runs that it executes: `submit`, `watch`, `pause`, `cancel`, `resume`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raysp.commands.consent import AllowPickle, AllowRemoteCode
from raysp.commands.follow import follow_to_end
from raysp.commands.place import Place, Service
from raysp.commands.run import Json, SpecFile, Store
from raysp.commands.where import Server, place

if TYPE_CHECKING:
    from raysp.runs.state import Desired, RunState, ServiceStatus

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


def status(server: Server = None, json: Json = False) -> None:
    """Show the service: its evaluators, what each has in memory, and the runs that it executes or that wait."""
    from raysp.commands import display

    found = place(server).status()
    if found.status is None:
        lost = found.address is not None
        if json:
            display.print_json({"running": False, "address": found.address})
        else:
            text = (
                "The service has died; `raysp up` starts it again, and it goes on with its runs." if lost else "No service is running; `raysp up` starts one."
            )
            display.out.print(text, markup=False)
    elif json:
        unfinished = [_told(state) for state in found.unfinished]
        display.print_json({"running": True, "address": found.address, "url": found.url, **asdict(found.status), "unfinished": unfinished})
    else:
        _print_status(found.status, found.unfinished, f"{found.address}{found.started}", found.url)


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
    server: Server = None,
    json: Json = False,
) -> None:
    """Give the service a question from a spec file, or all questions of a set of examples at once, and return."""
    from raysp.commands import display, job
    from raysp.commands.run import overridden
    from raysp.errors import UserError
    from raysp.specs.run import load_spec

    spec = overridden(load_spec(path), store=store)
    if address is not None:
        if server is not None:
            raise UserError("address", address, "is one way to reach a cluster, and --server is another", "leave one of them out")
        job.send(spec, address, priority=priority, follow=follow, when_stopped=when_stopped or "pause", json=json)
        return
    if when_stopped is not None:
        raise UserError("when_stopped", when_stopped, "is for jobs", "give --address too, or leave it out: what is submitted here depends on no process")
    with place(server, spec.store).service() as service:
        submitted = service.submit(spec, priority)
        ids = [each.run_id for each in submitted]
        if not json:
            _print_submitted(ids)
        if follow:
            follow_to_end(service, ids, json=json)
        elif json:
            display.print_json({"runs": [{"label": each.label, **_told(each.state)} for each in submitted]})


def watch(run_id: Runs, store: Store = None, server: Server = None, json: Json = False) -> None:
    """Follow runs of the service to their end and print their answers. Ctrl-C stops following; the runs go on."""
    with place(server, store).service() as service:
        follow_to_end(service, _found(service, run_id), json=json)


def cancel(run_id: Runs, store: Store = None, server: Server = None, json: Json = False) -> None:
    """Cancel runs after the batches under way. What was measured stays stored, and `raysp resume` continues from there."""
    _steer(run_id, "cancelled", place(server, store), json=json)


def pause(run_id: Runs, store: Store = None, server: Server = None, json: Json = False) -> None:
    """Pause runs after the batches under way, until `raysp resume`."""
    _steer(run_id, "paused", place(server, store), json=json)


def resume(  # noqa: PLR0917  the options of a command
    run_id: Annotated[str, typer.Argument(help="A run's id or the beginning of it, its name, or last.")],
    allow_pickle: AllowPickle = False,
    allow_remote_code: AllowRemoteCode = False,
    store: Store = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Continue a run that was interrupted, paused, cancelled or failed. Nothing that is stored is evaluated again."""
    from raysp.commands.execute import answer
    from raysp.specs.policy import Consent

    with place(server, store).resumed(run_id, Consent(allow_pickle, allow_remote_code)) as found:
        if found.service is not None:
            follow_to_end(found.service, [found.run_id], json=json)
        elif found.spec is not None:
            answer(found.spec, json=json, run_id=found.run_id)


def _steer(wanted: Sequence[str], desired: "Desired", where: Place, *, json: bool) -> None:
    from raysp.commands import display

    with where.service() as service:
        states = [service.steer(run_id, desired) for run_id in _found(service, wanted)]
    if json:
        display.print_json({"runs": [_told(state) for state in states]})
        return
    for state in states:
        text = f"is {state.status}" if state.status == desired else f"will be {desired} after the batches under way"
        display.out.print(f"run {state.run_id} {text}; `raysp resume {state.run_id}` continues it", markup=False)


def _found(service: Service, wanted: Sequence[str]) -> list[str]:
    """The ids that these words refer to, each once."""
    return list(dict.fromkeys(run_id for word in wanted for run_id in service.find(word)))


def _print_submitted(run_ids: Sequence[str]) -> None:
    from raysp.commands import display
    from raysp.runs.state import common_word

    word = common_word(run_ids)
    what = f"run {word}" if len(run_ids) == 1 else f"{len(run_ids)} runs, {run_ids[0]} to {run_ids[-1]},"
    display.out.print(f"{what} submitted; `raysp watch {word}` follows, `raysp cancel {word}` cancels", markup=False)


def _told(state: "RunState") -> dict[str, Any]:
    """A state as JSON has it."""
    return {name: value for name, value in asdict(state).items() if name != "version"}


def _print_status(found: "ServiceStatus", runs: "Sequence[RunState]", address: str, url: str | None) -> None:
    import pyarrow as pa

    from raysp.commands import display

    counts = ", ".join(f"{count} {status}" for status, count in sorted(found.runs.items())) or "none"
    display.out.print(f"raysp {found.version} at {address}; runs: {counts}", markup=False)
    if url is not None:
        display.out.print(f"page: {url}", markup=False)
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
