"""Where the thread of a run and Ray Tune's meet: the run puts tasks on a desk, trials take blocks of them, and answers come back to the desk.

The desk knows neither games nor Tune: callers decide what a task contains and who takes a block. It ensures that every task is answered exactly once
whatever dies, that no worker is idle for long at the end of a round, and that idle workers keep what they have loaded for the next round: Tune ends
all actors but one that have no trial, so idle workers are given empty blocks.
"""

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import ray

from raysp.game import Measurement

POLL_SECONDS = 0.25
#: A block should take this long: for less, the overhead of a trial matters, and an actor started for the block would lose it to one that is free sooner.
LEAST_BLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Task:
    """One call of an evaluator: its number, unique within an experiment, the method, the arguments after the lens, and the dtype of the lens's model."""

    number: int
    method: str
    arguments: tuple[Any, ...]
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The answer to a task whose actor died while it executed it, with what is known of the death."""

    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """The tasks of one trial. A trial with none waits until it is recalled."""

    tasks: tuple[Task, ...]

    def __repr__(self) -> str:
        """Part of the trial's name."""
        return f"{self.tasks[0].number}-{self.tasks[-1].number}" if self.tasks else "none"


class Desk:
    """The tasks that wait, those that each trial holds, and the answers that came back."""

    def __init__(self, workers: int) -> None:
        self.retried = 0
        self.closed = False
        self._workers = workers
        self._lock = threading.RLock()
        self._waiting = deque[Task]()
        self._held: dict[str, dict[int, Task]] = {}
        self._idle = set[str]()
        self._spare = 0
        self._actors: dict[str, Any] = {}
        self._trained, self._seconds = 0, 0.0
        self._answers = SimpleQueue[tuple[int, Any] | BaseException]()

    def __getstate__(self) -> dict[str, Any]:
        """An empty state: Tune pickles what it is given, and nobody reads it."""
        return {}

    @property
    def running(self) -> bool:
        """Whether any trial has an actor."""
        return bool(self._actors)

    def ask(self, tasks: Sequence[Task]) -> None:
        """Add tasks to those that wait."""
        with self._lock:
            self._waiting.extend(tasks)

    def answer(self) -> tuple[int, Any] | None:
        """The next answer with its task's number, or None if none arrived within `POLL_SECONDS`. Raises what a task raised."""
        try:
            answer = self._answers.get(timeout=POLL_SECONDS)
        except Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def give(self, trial: str) -> Block | None:
        """A block for a trial; None if all workers have one, or if there is nothing to do and no idle worker to keep."""
        with self._lock:
            free = self._spare - len(self._expecting())
            spared = free <= 0 and len(self._waiting) <= len(self._idle)  # no actor is started for tasks that idle ones are about to take
            if self.closed or spared or len(self._held) >= self._workers:
                return None
            block = Block(tuple(self._waiting.popleft() for _ in range(self._size())))
            self._held[trial] = {task.number: task for task in block.tasks}
            if not block.tasks:
                self._idle.add(trial)
            return block

    def recalls(self, trial: str) -> bool:
        """Whether an idle trial should end because some task has not been started."""
        with self._lock:
            return trial in self._idle and bool(self._waiting or any(self._held[other] for other in self._expecting()))

    def _expecting(self) -> list[str]:
        """Trials without an actor: a spare actor goes to them before one that is still being started."""
        return [trial for trial in self._held if trial not in self._actors]

    def _size(self) -> int:
        """Tasks in the next block: a worker's share of half of what waits (factoring: Hummel, Schonberg and Flynn 1992), and at least a few seconds' worth."""
        waiting = len(self._waiting)
        fair = -(-waiting // (2 * self._workers)) if self._workers > 1 else waiting
        least = math.ceil(LEAST_BLOCK_SECONDS * self._trained / self._seconds) if self._seconds else 1
        return min(waiting, max(fair, least))

    def begun(self, trial: str, actor: Any) -> None:
        """Record that a trial has its actor."""
        with self._lock:
            self._actors[trial] = actor
            self._spare = max(0, self._spare - 1)
            if self.closed:
                self._kill()

    def came(self, trial: str, number: int, answer: Any, error: BaseException | None) -> None:
        """Record a trial's answer to a task. It is dropped if the trial no longer holds the task: then another trial's answer counts."""
        with self._lock:
            if self._held.get(trial, {}).pop(number, None) is not None:
                if isinstance(answer, Measurement):
                    self._trained, self._seconds = self._trained + 1, self._seconds + answer.seconds
                self._answers.put((number, answer) if error is None else error)

    def ended(self, trial: str, error: str | None = None) -> None:
        """Record that a trial is over. If its actor died, the task it was executing is answered with `Lost`, and the rest of its block waits again."""
        with self._lock:
            self._actors.pop(trial, None)
            left = list(self._held.pop(trial, {}).values())
            self._idle.discard(trial)
            self._spare += error is None
            if error is None or not left or self.closed:
                return
            self.retried += 1
            self._waiting.extendleft(reversed(left[1:]))
            self._answers.put((left[0].number, Lost(error)))

    def fail(self, error: BaseException) -> None:
        """Raise an error in whoever waits for an answer."""
        self._answers.put(error)

    def close(self) -> None:
        """Stop the trials at once, whatever they are executing."""
        with self._lock:
            self.closed = True
            self._kill()

    def _kill(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
