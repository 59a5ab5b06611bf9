"""Commands on this machine: its store, this process or a Ray cluster, and the service that belongs to it."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysp.commands.place import Asked, Predicted, Resumed, Service, ServiceReport
from raysp.errors import UserError
from raysp.home import store_path

if TYPE_CHECKING:
    from raysp.runs.progress import Watch, WatchAll
    from raysp.runs.result import Result
    from raysp.runs.state import Desired, RunState, SubmittedRun
    from raysp.runtime.client import Client
    from raysp.specs.policy import Consent
    from raysp.specs.run import RunSpec
    from raysp.store import Answer, Limits, Store


class Here:
    """The store at `store`, by default this home's. See `raysp.commands.place.Place`."""

    def __init__(self, store: str | None, *, local: bool = False) -> None:
        self._store, self._local = store, local

    def answers(self, spec: "RunSpec", watch: "Callable[[list[str]], WatchAll]", run_id: str | None = None) -> "Iterator[tuple[str, Result]]":
        """As `Place.answers`."""
        from raysp.runs.parts import parts, set_name
        from raysp.runtime.engine import run_parts

        wanted = parts(spec)
        told = watch([part.label for part in wanted])
        for part, result in run_parts(wanted, watch=told, set_name=set_name(spec), run_id=run_id):
            yield part.label, result

    def plan(self, spec: "RunSpec") -> dict[str, Any]:
        """As `Place.plan`."""
        from raysp.runs.parts import parts
        from raysp.runs.plan import plan_run
        from raysp.runs.stored_game import PLAN
        from raysp.runtime.engine import workplace

        wanted = parts(spec)
        first = wanted[0].spec
        with workplace(store_path(first.store), PLAN, local=first.local, reading=True) as place:
            ready = place.prepared(first)
            return {**plan_run(ready, place.store, place.backend_of(ready.lens)), "runs": len(wanted)}

    @contextmanager
    def service(self) -> Generator[Service]:
        """As `Place.service`."""
        from raysp.runtime.client import attached

        with attached() as client:
            yield AttachedService(client, self._store)

    @contextmanager
    def resumed(self, run: str, consent: "Consent") -> Generator[Resumed]:
        """As `Place.resumed`: by the service if it knows the run, otherwise by this command."""
        from raysp.runtime.client import wanted_service
        from raysp.specs.run import run_spec

        with self._reading() as reading:
            row = reading.run_row(reading.find_run(run))
        run_id = row["run_id"]
        consent.check(run_id, row["spec"]["lens"])
        if wanted_service():
            with self.service() as service:
                try:
                    service.steer(run_id, "running")
                except UserError:
                    known = False
                else:
                    known = True
                if known:
                    yield Resumed(run_id, service)
                    return
        # Only here: a service may know what cannot be read back from the store, such as a function; and the store may have been moved since the run began.
        yield Resumed(run_id, spec=run_spec(row["spec"]).model_copy(update={"store": str(store_path(self._store))}))

    def status(self) -> ServiceReport:
        """As `Place.status`."""
        from raysp.runtime.client import attached, wanted_service
        from raysp.runtime.service import read_service

        served = read_service()
        address = served.address if served is not None else None
        if not wanted_service():
            return ServiceReport(address)
        with attached() as client:
            unfinished = [state for state in client.states() if not state.ended]
            return ServiceReport(client.address, client.status(), unfinished, " (started by `raysp up`)" if client.address == address else "")

    def runs(self) -> "list[tuple[dict[str, Any], RunState]]":
        """As `Place.runs`."""
        from raysp.runs.state import states

        with self._reading() as reading:
            rows, found = reading.runs().to_pylist(), {state.run_id: state for state in states(reading)}
            return [(row, found[row["run_id"]]) for row in rows]

    def stored(self, run: str) -> "Result":
        """As `Place.stored`."""
        from raysp.runs.result import read_result

        with self._reading() as reading:
            return read_result(reading, reading.find_run(run))

    def write_report(self, run: str, path: str) -> str:
        """As `Place.write_report`."""
        from raysp.report.page import write_report

        with self._reading() as reading:
            found = reading.find_run(run)
            write_report(reading, found, path)
            return found

    def write_set_report(self, run_ids: Sequence[str], path: str) -> None:
        """As `Place.write_set_report`."""
        from raysp.report.page import write_set_report

        with self._reading() as reading:
            write_set_report(reading, run_ids, path)

    def predict(self, run: str, asked: Asked, watch: "Watch") -> Predicted:
        """As `Place.predict`."""
        import numpy as np

        from raysp.runs.prediction import mask_of, predict_stored, read_subset

        with self._reading() as reading:
            found = reading.find_run(run)
            row = reading.run_row(found)
            labels = [component.label for component in reading.components(row["game_id"])]
            removed = [mask_of(labels, read_subset(text, labels), None) for text in asked.removed]
            masks = np.concatenate([*removed, *(mask_of(labels, None, read_subset(text, labels)) for text in asked.kept)])
            predictions = predict_stored(reading, found, masks, asked.query)
        if asked.exact is not None:
            from raysp.commands.acting import acting
            from raysp.runs.exact import measure

            with acting(store_path(self._store), found, local=self._local) as (_, place):
                measure(place.store, found, masks, place.backend_of, watch, asked.exact)
                predictions = predict_stored(place.store, found, masks, asked.query)
        return Predicted(found, row["value_intact"], predictions)

    def sql(self, query: str, limits: "Limits") -> "Answer":
        """As `Place.sql`: from the file if it is here, otherwise from the cluster's service."""
        from raysp.runtime.address import store_is_here
        from raysp.store import ask_confined

        if not store_is_here(self._store):
            from raysp.runtime.client import attached, joins

            if joins():
                with attached() as client:
                    return client.sql(query, limits, self._store)
        return ask_confined(store_path(self._store), query, limits)

    @contextmanager
    def _reading(self) -> "Generator[Store]":
        """The store; which snapshot was read is said afterwards."""
        from raysp.commands import display
        from raysp.store import Store

        with Store.read(store_path(self._store)) as reading:
            yield reading
        display.note(reading.note)


@dataclass(frozen=True)
class AttachedService:
    """The service of the cluster that this process has joined. See `raysp.commands.place.Service`."""

    client: "Client"
    store: str | None

    def submit(self, spec: "RunSpec", priority: int) -> "list[SubmittedRun]":
        """As `Service.submit`."""
        from raysp.runs.parts import new_run_ids, parts, set_name
        from raysp.runs.state import RunRequest, SubmittedRun

        wanted = parts(spec)
        ids = new_run_ids(len(wanted))
        self.client.submit([RunRequest(part.spec, run_id, set_name(spec), priority) for part, run_id in zip(wanted, ids, strict=True)])
        return [SubmittedRun(state.run_id, part.label, state) for part, state in zip(wanted, self.client.states(ids), strict=True)]

    def find(self, wanted: str) -> list[str]:
        """As `Service.find`: runs that the service remembers, otherwise runs in the store."""
        from raysp.runs.state import find_runs, states
        from raysp.store import Store

        try:
            found = find_runs(self.client.states(), wanted)
        except UserError:
            found = []
        if found:
            return found
        with Store.read(store_path(self.store)) as reading:
            return find_runs(states(reading), wanted) or [reading.find_run(wanted)]

    def follow(self, run_ids: Sequence[str]) -> "Iterator[RunState]":
        """As `Service.follow`."""
        return self.client.follow(run_ids)

    def steer(self, run_id: str, desired: "Desired") -> "RunState":
        """As `Service.steer`."""
        return self.client.steer(run_id, desired)

    def result(self, run_id: str) -> "Result":
        """As `Service.result`."""
        return self.client.result(run_id)
