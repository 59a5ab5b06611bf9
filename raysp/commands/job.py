"""Questions as jobs of a cluster elsewhere: `send` is the side of `raysp submit --address`, and the hidden command `job` what the cluster's head executes."""

import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysp.specs.run import RunSpec
from raysp.version import __version__

if TYPE_CHECKING:
    from raysp.runs.package import Package, WhenStopped
    from raysp.runs.state import RunRequest
    from raysp.runtime.client import Client
    from raysp.runtime.jobs import Cluster

#: Exit statuses of a shell that finds no such program, and of Python without a module.
NO_PROGRAM, NO_MODULE = 127, 1
#: How often a job that was lost with its head is sent again to go on following: its runs belong to the cluster, and are not asked twice.
RETRIES = 5


def job(folder: Annotated[Path, typer.Argument(help="The folder of a question.")]) -> None:
    """Answer the question that `raysp submit --address` sent: what a Ray job executes on the head."""
    from raysp.commands import display
    from raysp.commands.follow import print_answers, show_progress
    from raysp.runs.package import read_package
    from raysp.runtime.client import attached
    from raysp.runtime.jobs import ANSWER, SUBMITTED, leave_package

    package = read_package(folder)
    leave_package()
    with attached() as client, _steered(client, package):
        _submit(client, package)
        display.out.print(f"{SUBMITTED}: {_which(package.run_ids)}", markup=False)
        show_progress(client, package.run_ids, quiet=False)
        display.out.print(ANSWER, markup=False)
        print_answers(client, package.run_ids, json=package.json)


def _submit(client: "Client", package: "Package") -> None:
    """Submit the runs that the scheduler does not know yet: a job that was sent again follows those that are under way or done."""
    known = {state.run_id for state in client.states()}
    new = [request for request in package.requests if request.run_id not in known]
    if new:
        client.submit(new)


@contextmanager
def _steered(client: "Client", package: "Package") -> Generator[None]:
    """Have the runs paused or cancelled, as the package says, if the job is stopped."""
    from raysp.errors import InterruptedRunError, UserError

    try:
        yield
    except KeyboardInterrupt:
        if package.when_stopped == "continue":
            raise InterruptedRunError(f"the job was stopped; {_which(package.run_ids)} goes on") from None
        desired = "paused" if package.when_stopped == "pause" else "cancelled"
        for run_id in package.run_ids:
            try:
                client.steer(run_id, desired)
            except UserError:  # it has ended
                continue
        told = f"the job was stopped; {_which(package.run_ids)} will be {desired} after the batches under way"
        raise InterruptedRunError(f"{told}, and `raysp resume RUN` on the cluster continues from what is stored") from None


def send(spec: RunSpec, address: str, *, priority: int, follow: bool, when_stopped: str, json: bool) -> None:
    """Send a question to a cluster as a job, and return once the cluster has it; with `follow`, print its progress and its answer."""
    from raysp.commands import display
    from raysp.interrupts import interrupted_by_termination
    from raysp.runs.package import Package, check_when_stopped, write_package
    from raysp.runs.parts import new_run_ids, parts, set_name
    from raysp.runs.state import RunRequest, common_word
    from raysp.runtime.jobs import Cluster

    _check_store(spec.store)
    choice: WhenStopped = check_when_stopped(when_stopped)
    wanted = parts(spec)
    ids = new_run_ids(len(wanted))
    requests = tuple(RunRequest(part.spec, run_id, set_name(spec), priority) for part, run_id in zip(wanted, ids, strict=True))
    with interrupted_by_termination(), tempfile.TemporaryDirectory(prefix="raysp-") as folder:
        write_package(Path(folder), Package(requests, choice, json))
        cluster = Cluster(address)
        sent = _Sent(cluster, Path(folder), f"raysp-{common_word(ids)}", _metadata(requests))
        sent.start()
        with sent.left_behind(ids):
            sent.wait()
            if not json:
                display.out.print(f"{_which(ids)} submitted as job {sent.job_id}", markup=False)
            elif not follow:
                display.print_json({"job": sent.job_id, "address": cluster.address, "runs": [{"run_id": run_id} for run_id in ids]})
            if follow:
                sent.print_answer(json=json)


class _Sent:
    """A job that was sent, and its log as far as it has been read. One that is lost with its head is sent again."""

    def __init__(self, cluster: "Cluster", folder: Path, job_id: str, metadata: Mapping[str, str]) -> None:
        self.job_id = job_id
        self._cluster, self._folder, self._metadata = cluster, folder, metadata
        self._first, self._sent = job_id, 1
        self._lines: Iterator[str] = iter(())

    def start(self) -> None:
        """Start the job."""
        self._cluster.send(self._folder, self.job_id, self._metadata)
        self._lines = self._read()

    def wait(self) -> None:
        """Wait until the cluster has the question. Raises as `fail` if the job ends before."""
        from raysp.runtime.jobs import SUBMITTED

        seen: list[str] = []
        for line in self._lines:
            if line.startswith(SUBMITTED):
                return
            seen.append(line)
        self.fail(seen)

    def print_answer(self, *, json: bool) -> None:
        """Print the progress on stderr and the answer on stdout, or with `json` nothing but the answer. Raises as `fail` if there is none."""
        from raysp.runtime.jobs import ANSWER, COMPLAINT, SUBMITTED

        answered, answer, complaints = False, list[str](), list[str]()
        for line in self._lines:
            if line.startswith(SUBMITTED):  # sent again: whatever was told before is told again
                answered, answer, complaints = False, [], []
            elif line == ANSWER:
                answered = True
            elif line.startswith(COMPLAINT):
                complaints.append(line)
            elif answered:
                answer.append(line)
            elif not json:
                sys.stderr.write(f"{line}\n")
        sys.stdout.write("".join(f"{line}\n" for line in answer))
        self.fail(complaints, allow_success=True)

    def fail(self, lines: Sequence[str], *, allow_success: bool = False) -> None:
        """Raise what the end of the job means, of whose log these are the last lines."""
        from raysp.errors import JobError, UserError
        from raysp.runtime.jobs import COMPLAINT

        state = self._cluster.state(self.job_id)
        if state.code == 0 and allow_success:
            return
        complaints = [line.removeprefix(COMPLAINT) for line in lines if line.startswith(COMPLAINT)]
        if complaints:
            raise JobError(complaints[-1], state.code or 130)
        if state.stopped:
            raise JobError(f"job {self.job_id} was stopped", 130)
        if state.code == NO_MODULE and any("No module named" in line and "raysp" in line for line in lines):
            raise UserError("address", self._cluster.address, "has no raysp on its head", "install the version that is here into the environment of Ray there")
        if state.code == NO_PROGRAM:
            raise UserError("address", self._cluster.address, "has no python on the PATH of its head", "start Ray with the environment of raysp activated")
        last = next((line for line in reversed(lines) if line.strip()), state.message)
        raise JobError(f"job {self.job_id} failed on the cluster ({last.strip()[:200]}); its log is on the dashboard", 1)

    @contextmanager
    def left_behind(self, run_ids: Sequence[str]) -> Generator[None]:
        """Say how to go on following if that is interrupted."""
        from raysp.errors import InterruptedRunError

        try:
            yield
        except KeyboardInterrupt:
            follow = f"`ray job logs --follow --address {self._cluster.address} {self.job_id}` follows again"
            raise InterruptedRunError(f"{_which(run_ids)} goes on; {follow}") from None

    def _read(self) -> Iterator[str]:
        from raysp.errors import JobError
        from raysp.runtime.jobs import LostJobError

        reason = ""
        for _ in range(RETRIES):
            try:
                yield from self._cluster.lines(self.job_id)
            except LostJobError as error:
                reason = (str(error).strip().splitlines() or [""])[0][:200]
                self._send_again()
            else:
                return
        raise JobError(f"job {self._first} was lost {RETRIES} times ({reason}); if its runs are queued they go on with the cluster", 1)

    def _send_again(self) -> None:
        """Send the question again, as soon as the head that has come back takes it."""
        from raysp.errors import UserError
        from raysp.runtime.jobs import AWAY_SECONDS, LOOK_SECONDS

        until = time.monotonic() + AWAY_SECONDS
        while True:
            self._sent += 1
            self.job_id = f"{self._first}-{self._sent}"
            try:
                self._cluster.send(self._folder, self.job_id, self._metadata)
            except UserError:
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_SECONDS)
            else:
                return


def _metadata(requests: "Sequence[RunRequest]") -> dict[str, str]:
    """What the dashboard shows of a job: Ray takes texts only."""
    from raysp.runs.state import common_word

    spec = requests[0].spec
    number = f" ({len(requests)} runs)" if len(requests) > 1 else ""
    word = common_word([request.run_id for request in requests])
    known = {
        "job_name": f"raysp {word} {spec.lens.kind}{number}", "run": word, "name": spec.name, "lens": spec.lens.kind, "explorer": spec.explorer.kind,
        "model": getattr(spec.lens, "model", None), "n": getattr(spec.lens, "n", None), "budget": getattr(spec.explorer, "budget", None),
        "priority": requests[0].priority, "raysp": __version__,
    }  # fmt: skip
    return {name: str(value) for name, value in known.items() if value is not None}


def _check_store(store: str | None) -> None:
    from raysp.errors import UserError

    if store is not None and not store.startswith("/"):
        raise UserError("store", store, "is not a full path, and with --address it is one on the head", "write it from / on, or leave it out")


def _which(run_ids: Sequence[str]) -> str:
    """Runs that were submitted together, in words."""
    return f"run {run_ids[0]}" if len(run_ids) == 1 else f"{len(run_ids)} runs, {run_ids[0]} to {run_ids[-1]},"
