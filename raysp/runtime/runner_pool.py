"""The runners: started as runs need them, reused, adopted from a scheduler that died, and ended when too many are idle."""

import contextlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError

from raysp.runtime.cluster import NAMESPACE
from raysp.runtime.link import AGAIN_SECONDS, Find
from raysp.runtime.messages import Job
from raysp.runtime.pool import named
from raysp.runtime.runner import RUNNER, runner_actor

#: Runs that are executed at the same time. Each is a process; where cores are few, more of them would only wait for each other.
MAX_RUNNERS = min(16, max(4, os.cpu_count() or 1))
#: One idle runner is kept for the next run; more of them end after this long. A process takes longer to start than many a run to finish.
IDLE_SECONDS = 60.0
#: How long a runner may take to say what it is doing before it is given up.
HOLDING_SECONDS = 15.0
#: Keeps runners on the head node, where the stores are.
PLACE = {"node:__internal_head__": 0.001}


class RunnerPool:
    """The runners by name, each with the run that it executes or None."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._actors: dict[str, Any] = {}
        self._idle_since: dict[str, float] = {}
        self.busy: dict[str, str | None] = {}
        self._number = 0

    def adopt(self) -> dict[str, Job]:
        """Take over the runners of an earlier scheduler; what they execute. One that does not answer is ended."""
        found: dict[str, Job] = {}
        asked: dict[str, Any] = {}
        for name in named(RUNNER):
            with contextlib.suppress(ValueError):  # one that has ended in the meantime
                self._actors[name] = ray.get_actor(name, NAMESPACE)
                asked[name] = self._actors[name].holding.remote()
                self._number = max(self._number, int(name.removeprefix(RUNNER)) + 1)
        deadline = time.monotonic() + HOLDING_SECONDS
        for name, reference in asked.items():
            try:
                job = self._held(name, reference, deadline)
            except (RayError, GetTimeoutError):
                self.drop(name)
                continue
            self.busy[name] = None if job is None else job.request.run_id
            if job is not None:
                found[name] = job
        return found

    def _held(self, name: str, reference: Any, deadline: float) -> Job | None:
        """What a runner says that it executes; it is asked again if its answer was lost. RayError if it is dead, GetTimeoutError after the deadline."""
        while True:
            try:
                job: Job | None = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
            except ActorUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_SECONDS)
                reference = self._actors[name].holding.remote()
            else:
                return job

    def give(self, job: Job, returned: Callable[[BaseException | None], None]) -> str:
        """Have a runner execute a job; its name. `returned` is called, in another thread, when it has, or with the error that it died of."""
        name = next((name for name, run_id in self.busy.items() if run_id is None), None) or self._start()
        self.busy[name] = job.request.run_id
        self._idle_since.pop(name, None)
        spec = job.request.spec
        shown = f"execute {job.request.run_id}: {spec.lens.kind} lens, {spec.explorer.kind}"
        done: Future[None] = self._actors[name].execute.options(name=shown).remote(job, self._find).future()

        def tell(answer: "Future[None]") -> None:
            returned(answer.exception())

        done.add_done_callback(tell)
        return name

    def _start(self) -> str:
        name, self._number = f"{RUNNER}{self._number}", self._number + 1
        options = runner_actor.options(name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", resources=PLACE)
        self._actors[name], self.busy[name] = options.remote(name), None
        return name

    def free(self, name: str) -> None:
        """Take a runner back."""
        self.busy[name], self._idle_since[name] = None, time.monotonic()

    def keep_spare(self) -> None:
        """Start a runner for the next run."""
        if None not in self.busy.values() and len(self.busy) < MAX_RUNNERS:
            self._start()

    def rest(self) -> None:
        """End the runners that have been idle for long, but for one."""
        now = time.monotonic()
        idle = [name for name, run_id in self.busy.items() if run_id is None]
        rested = [name for name in idle if now - self._idle_since.setdefault(name, now) > IDLE_SECONDS]
        for name in rested[: len(idle) - 1]:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Forget a runner that is dead, or end it."""
        self.busy.pop(name, None)
        self._idle_since.pop(name, None)
        actor = self._actors.pop(name, None)
        if actor is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor, no_restart=True)

    def check(self, name: str) -> tuple[bool, bool | None]:
        """Whether a runner lives, and whether it has a job; None if it does not answer, because it is still being started or too busy, or its answer was lost."""
        try:
            job: Job | None = ray.get(self._actors[name].holding.remote(), timeout=HOLDING_SECONDS)
        except (GetTimeoutError, ActorUnavailableError):
            return True, None
        except (RayError, KeyError):
            return False, None
        return True, job is not None

    @property
    def full(self) -> bool:
        """Whether no more runs can be executed for now."""
        return sum(run_id is not None for run_id in self.busy.values()) >= MAX_RUNNERS
