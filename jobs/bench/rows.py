"""What the benchmarks say: a row is a line of JSON on stdout (and in a file, where one is named), progress goes to stderr."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def say(*words: object) -> None:
    """A line of progress."""
    print(*words, file=sys.stderr, flush=True)


def write(row: Mapping[str, Any], path: Path | None = None) -> None:
    """A row, on stdout at once and at the end of a file."""
    line = json.dumps(row)
    print(line, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(line + "\n")


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is shown to a person."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def clock(device: object) -> Callable[[], float]:
    """Seconds of the processor where it does the work, whatever else the machine does; of the wall where a GPU does."""
    return time.process_time if str(device) == "cpu" else time.perf_counter
