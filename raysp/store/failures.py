"""Errors of a store as one-line messages."""

import functools
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import duckdb

from raysp.errors import UserError

FULL = ("No space left", "Could not write all bytes", "File too large", "Disk quota", "Could not truncate file", "Could not allocate space")
DAMAGED = (
    "not a valid DuckDB",
    "Corrupt",
    "Could not read enough bytes",
    "Failed to load metadata",
    "Serialization Error",
    "INTERNAL Error",
    "_scanner.duckdb_extension",
)
_MARKED = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)
P = ParamSpec("P")
R = TypeVar("R")

CLOSED_TO_US = ("Permission denied", "Read-only file system", "Operation not permitted")


def lock_holder(error: Exception) -> int | None:
    """Return the id of the process that holds the file's lock according to DuckDB, 0 if it is not named, None for another error."""
    text = str(error)
    if "Could not set lock" not in text:
        return None
    found = re.search(r"PID (\d+)", text)
    return int(found.group(1)) if found else 0


def explained(path: Path, error: Exception) -> UserError:
    """Translate an error that DuckDB or the system raised on this store into a UserError."""
    text = str(error)
    shown = str(path)
    holder = lock_holder(error)
    if holder is not None:
        by = f"process {holder}" if holder else "another process"
        return UserError("store", shown, f"is locked: {by} has it open", "wait for it to end, or name another file with --store")
    if any(sign in text for sign in FULL):
        return UserError("store", shown, "cannot grow: the disk is full", "free some space and resume; everything stored before is kept")
    if "version number" in text and "read" in text:
        return UserError("store", shown, "was written by a newer DuckDB", "upgrade: pip install -U duckdb")
    if any(sign in text for sign in DAMAGED):
        return UserError("store", shown, "is damaged, or not a DuckDB file", "restore a copy, or name another file with --store")
    if "does not exist" in text:
        return missing(path)
    if "Is a directory" in text or path.is_dir():
        return UserError("store", shown, "is a folder", "name a file, such as raysp.duckdb")
    if any(sign in text for sign in CLOSED_TO_US) or "Cannot open file" in text:
        return UserError("store", shown, "cannot be written there", "choose a folder that you may write to with --store")
    return UserError("store", shown, f"failed ({_first_line(text)})", "see the events table and DuckDB's documentation")


def missing(path: Path) -> UserError:
    """The error for a store that does not exist."""
    return UserError("store", str(path), "does not exist", "make a run first, or name another file with --store")


def newer(path: Path, found: int, known: int) -> UserError:
    """The error for a store written by a later raysp."""
    return UserError("store", str(path), f"has schema {found}, but this version of raysp supports at most {known}", "upgrade raysp: pip install -U raysp")


def no_surrogate(run_id: str) -> UserError:
    """The error for a run without a stored surrogate."""
    problem = "has no surrogate in the store: it is unfinished, or was made by an earlier version of raysp"
    return UserError("run", run_id, problem, "run the same question again, which reuses its evaluations")


def foreign(path: Path) -> UserError:
    """The error for a DuckDB file whose tables are not raysp's."""
    return UserError("store", str(path), "is a DuckDB file, but not a raysp store", "name another file with --store")


@contextmanager
def explaining(path: Path) -> Generator[None]:
    """Translate errors of DuckDB and the system on a store into UserError, and an interrupted query into KeyboardInterrupt.

    A ConstraintException is left to the caller.
    """
    try:
        with keyboard_interrupts():
            yield
    except duckdb.ConstraintException:
        raise
    except (duckdb.Error, OSError) as error:
        raise explained(path, error) from None


@contextmanager
def keyboard_interrupts() -> Generator[None]:
    """Raise KeyboardInterrupt for a query that a signal interrupted."""
    try:
        yield
    except RuntimeError as error:
        # DuckDB replaces the KeyboardInterrupt of a signal that arrives during a query; a run would end as failed where it was interrupted.
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def explained_reads(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Translate errors of a method as `explaining` does, on the store at its object's `path`."""

    @functools.wraps(method)
    def explained_method(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with explaining(self.path):
            return method(self, *args, **kwargs)

    return explained_method


def _place(message: str) -> str:
    """Where in a query the error is, from the line of it that DuckDB shows with a mark below; a long line is shown without its beginning."""
    found = _MARKED.search(message)
    if found is None:
        return ""
    line, shown, blanks = found.groups()
    column = "" if shown.startswith("...") else f", column {len(blanks) - len(f'LINE {line}: ') + 1}"
    return f" (line {line}{column})"


def sql_failure(error: Exception) -> UserError:
    """Translate the error of a refused query: DuckDB's first line with the place in the query and, if there is one, its hint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    problem = re.sub(r"^[A-Za-z]+ Error:\s*", "", lines[0]).rstrip(" !.") if lines else type(error).__name__
    hint = next((line for line in lines[1:] if line.startswith(("Did you mean", "Candidate bindings", "HINT", "Hint"))), None)
    return UserError("sql", None, problem + _place(str(error)), hint or "SHOW TABLES and DESCRIBE <table> list what there is")


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "no message")
