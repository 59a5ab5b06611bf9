"""Work between a campaign's thread and Tune's: tasks are laid down on a desk, trials take blocks of them, and answers come back to it.

The desk knows neither games nor Tune: what a task says, and who takes a block, is theirs. It sees to it that every task is answered once, whatever dies
on the way, that no worker is idle for long at the end of a round, and that those who have nothing to do keep what they have loaded for the next: Tune ends
all actors but one that are without a trial, so they get empty blocks.
"""

import math
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import ray

from raysp.errors import EvaluationError
from raysp.game import Measurement
from raysp.runtime.pool import ATTEMPTS

POLL_SECONDS = 0.25
# Below this much work in a block the trial itself counts, and an actor that starts for a block loses it to one that is free by then.
LEAST_BLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Task:
    """One call of an evaluator: its number, unique within an experiment, the method, what follows the lens, and the dtype that the lens's model is to be in."""

    number: int
    method: str
    arguments: tuple[Any, ...]
    dtype: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """What one trial is to do; nothing, and it waits to be recalled."""

    tasks: tuple[Task, ...]

    def __repr__(self) -> str:
        """Part of the trial's name."""
        return f"{self.tasks[0].number}-{self.tasks[-1].number}" if self.tasks else "none"


class Desk:
    """What is to be done, what each trial holds of it, and what came back: where the campaign's thread and Tune's meet."""

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
        self._attempts = Counter[int]()
        self._trained, self._seconds = 0, 0.0
        self._answers = SimpleQueue[tuple[int, Any] | BaseException]()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and nobody reads it."""
        return {}

    @property
    def running(self) -> bool:
        """Whether any trial has its actor."""
        return bool(self._actors)

    def ask(self, tasks: Sequence[Task]) -> None:
        """Have tasks done."""
        with self._lock:
            self._waiting.extend(tasks)

    def answer(self) -> tuple[int, Any] | None:
        """The next answer with its task's number, or None when none came for a moment. Raises what a task raised."""
        try:
            answer = self._answers.get(timeout=POLL_SECONDS)
        except Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def give(self, trial: str) -> Block | None:
        """A block for a trial, unless all workers have theirs or there is nothing to do and nobody to keep."""
        with self._lock:
            free = self._spare - len(self._expecting())
            spared = free <= 0 and len(self._waiting) <= len(self._idle)  # no actor is started for what idle ones are about to take
            if self.closed or spared or len(self._held) >= self._workers:
                return None
            block = Block(tuple(self._waiting.popleft() for _ in range(self._size())))
            self._held[trial] = {task.number: task for task in block.tasks}
            if not block.tasks:
                self._idle.add(trial)
            return block

    def recalls(self, trial: str) -> bool:
        """Whether a trial with nothing to do is to end, as there is something that nobody has begun."""
        with self._lock:
            return trial in self._idle and bool(self._waiting or any(self._held[other] for other in self._expecting()))

    def _expecting(self) -> list[str]:
        """Trials without an actor: the first that is spare goes to them, before one that is only being started."""
        return [trial for trial in self._held if trial not in self._actors]

    def _size(self) -> int:
        """Of the next block: a worker's fair share of half of what is left (factoring: Hummel, Schonberg and Flynn 1992), and a few seconds at least."""
        waiting = len(self._waiting)
        fair = -(-waiting // (2 * self._workers)) if self._workers > 1 else waiting
        least = math.ceil(LEAST_BLOCK_SECONDS * self._trained / self._seconds) if self._seconds else 1
        return min(waiting, max(fair, least))

    def begun(self, trial: str, actor: Any) -> None:
        """A trial has its actor."""
        with self._lock:
            self._actors[trial] = actor
            self._spare = max(0, self._spare - 1)
            if self.closed:
                self._kill()

    def came(self, trial: str, number: int, answer: Any, error: BaseException | None) -> None:
        """A trial reported a task. One that it no longer holds has been given to another, whose answer counts."""
        with self._lock:
            if self._held.get(trial, {}).pop(number, None) is not None:
                if isinstance(answer, Measurement):
                    self._trained, self._seconds = self._trained + 1, self._seconds + answer.seconds
                self._answers.put((number, answer) if error is None else error)

    def ended(self, trial: str, error: str | None = None) -> None:
        """A trial is over. If it failed, what it had not reported is to be done by others; at most `ATTEMPTS` times."""
        with self._lock:
            self._actors.pop(trial, None)
            left = list(self._held.pop(trial, {}).values())
            self._idle.discard(trial)
            self._spare += error is None
            if error is None or not left or self.closed:
                return
            self._waiting.extendleft(reversed(left))
            self.retried += 1
            self._attempts[left[0].number] += 1
            if self._attempts[left[0].number] >= ATTEMPTS:
                self.fail(EvaluationError(f"a batch was lost {ATTEMPTS} times, last by {error}"))

    def fail(self, error: BaseException) -> None:
        """Let whoever waits for an answer have this error."""
        self._answers.put(error)

    def close(self) -> None:
        """Stop the trials, without waiting for what they are at."""
        with self._lock:
            self.closed = True
            self._kill()

    def _kill(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
