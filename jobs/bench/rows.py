"""Output of the benchmarks: rows as lines of JSON on stdout and, if one is named, in a file; progress on stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def say(*words: object) -> None:
    """Print a line of progress."""
    print(*words, file=sys.stderr, flush=True)


def write(row: Mapping[str, Any], path: Path | None = None) -> None:
    """Print a row and append it to a file."""
    line = json.dumps(row)
    print(line, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(line + "\n")


def write_all(rows: Iterable[Mapping[str, Any]], summary: Callable[[list[Any]], Mapping[str, Any]], path: Path | None = None) -> None:
    """Write rows as they come, each with a line of progress, and the summary of all of them at the end."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        found.append(row)
        write(row, path)
        say(" ".join(str(value) for value in rounded(row).values()))
    write(summary(found), path)


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with rounded numbers, for display."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def clock(device: object) -> Callable[[], float]:
    """Processor seconds on CPUs, which other programs hardly change; wall seconds on GPUs."""
    return time.process_time if str(device) == "cpu" else time.perf_counter
