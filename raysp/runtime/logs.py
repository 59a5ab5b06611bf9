"""What the service's actors log: one JSON object a line on stderr, which Ray keeps in its log files and shows on its dashboard.

Prompts, answers and tokens are never logged, nor the messages of errors that may quote them: those are stored with the run. The README of this folder lists the events.
"""

import contextlib
import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.exceptions import RayError, RayTaskError

from raysp.errors import UserError, masked

#: What a line may say beside its time, level, logger and message: fields that are given as `extra`.
FIELDS = (
    "run", "session", "incarnation", "status", "runner", "evaluator", "node", "lease", "order", "leases", "masks", "components", "fingerprint", "seconds",
    "phase", "done", "total", "store", "reason", "exception",
)  # fmt: skip
#: Fields of a UserError whose message says nothing about a question.
HARMLESS = {"store", "cluster", "RAYSP_HOME"}
PACKAGE = "raysp"


class JsonLines(logging.Formatter):
    """A record as one JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line: time (UTC), level, logger, message, and those of `FIELDS` that the record has."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info is not None and (error := record.exc_info[1]) is not None:
            line["exception"] = described(error)
        return masked(json.dumps(line, default=str))


class StderrLines(logging.Handler):
    """Writes each line to what is stderr at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed stream: the work goes on without a log
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def log_to_stderr() -> None:
    """Write what this process logs about the service to its stderr, from the level that `RAYSP_LOG_LEVEL` names (INFO by default) on. Twice is as once."""
    logger = logging.getLogger(PACKAGE)
    if not any(isinstance(handler, StderrLines) for handler in logger.handlers):
        logger.addHandler(StderrLines())
    wanted = logging.getLevelNamesMapping().get(os.environ.get("RAYSP_LOG_LEVEL", "").upper())
    logger.setLevel(logging.INFO if wanted is None else wanted)


def described(error: BaseException) -> str:
    """An error with the places that it passed through. Its message only if that cannot quote a question."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{reason_of(error)} ({where})" if where else reason_of(error)


def reason_of(error: BaseException) -> str:
    """The kind of an error; with its message if that is about the system, or with the field that it is about."""
    kind = type(error).__name__
    if isinstance(error, UserError):
        return str(error) if error.field in HARMLESS else f"{kind} about {error.field}"
    if isinstance(error, OSError) or (isinstance(error, RayError) and not isinstance(error, RayTaskError)):
        return ": ".join([kind, *str(error).strip().splitlines()[:1]])
    return kind
