"""What the scheduler and the processes that want evaluations send each other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raysp.errors import EvaluationError, InterruptedRunError, UserError
from raysp.game import GameInfo, Measurement
from raysp.runs.state import Desired, RunRequest


class UnknownSessionError(RuntimeError):
    """The scheduler does not know a session, because it was restarted; attach again."""


class RecoveringError(RuntimeError):
    """The scheduler was restarted and cannot open the store of a run that is executed yet; ask again."""


class SupersededError(InterruptedRunError):
    """Another process executes the run in place of this one, which was believed dead."""


#: Errors that arrive as they were raised, without the traceback of the process that raised them.
PASSED_ON = (UserError, EvaluationError, InterruptedRunError, UnknownSessionError, ValueError)


@dataclass(frozen=True, slots=True)
class Job:
    """A run that a runner executes. `incarnation` tells this execution from an earlier one of the same run; `store` is the path of its store."""

    request: RunRequest
    incarnation: str
    store: Path


@dataclass(frozen=True, slots=True, eq=False)
class PlacedOrder:
    """Packed distinct masks (uint8, `(m, ceil(n / 8))`) to be measured, and how their evaluations are stored; `number` is unique within the session.

    `slopes`: they are to be measured with slopes.
    """

    number: int
    packed: NDArray[np.uint8]
    phase: str
    round: int
    positions: NDArray[np.int32]
    slopes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """The answer to some rows of an order: their measurement, stored if its values are finite, or the error that they ended with.

    `serial` counts the answers of a session from 1. `reused`: nothing was measured for this session. Slopes that are stored are not sent along.
    """

    serial: int
    order: int
    rows: NDArray[np.intp]
    measurement: Measurement | None
    error: BaseException | None
    stored: bool
    reused: bool


@dataclass(frozen=True, slots=True, eq=False)
class Exchanged:
    """What has been told since the last exchange, what is desired of the run, and the number of evaluators that work for it."""

    told: tuple[Told, ...]
    desired: Desired
    workers: int


@dataclass(frozen=True, slots=True, eq=False)
class Attached:
    """The game of a session, and the number of evaluators that work for it."""

    info: GameInfo
    workers: int
