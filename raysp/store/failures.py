"""What can go wrong with a store, said in one line."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from raysp.errors import UserError

FULL = ("No space left", "Could not write all bytes", "File too large", "Disk quota", "Could not truncate file", "Could not allocate space")
DAMAGED = ("not a valid DuckDB", "Corrupt", "Could not read enough bytes", "Failed to load metadata", "Serialization Error", "INTERNAL Error")
CLOSED_TO_US = ("Permission denied", "Read-only file system", "Operation not permitted")


def lock_holder(error: Exception) -> int | None:
    """The process that holds the file's lock, as DuckDB reports it; 0 when it does not say which; None for another error."""
    text = str(error)
    if "Could not set lock" not in text:
        return None
    found = re.search(r"PID (\d+)", text)
    return int(found.group(1)) if found else 0


def explained(path: Path, error: Exception) -> UserError:
    """The one line for an error that DuckDB or the system raised on this store."""
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
    """There is no store to read."""
    return UserError("store", str(path), "does not exist", "make a run first, or name the right file with --store")


def newer(path: Path, found: int, known: int) -> UserError:
    """The store was written by a later raysp."""
    return UserError("store", str(path), f"has schema {found}, this raysp knows {known}", "upgrade raysp: pip install -U raysp")


def no_surrogate(run_id: str) -> UserError:
    """The run has no surrogate in the store."""
    problem = "has no surrogate in the store: it has not ended, or an earlier version of raysp made it"
    return UserError("run", run_id, problem, "ask the same question again, which reuses its evaluations")


def foreign(path: Path) -> UserError:
    """The file holds tables that raysp did not make."""
    return UserError("store", str(path), "is a DuckDB file, but not a store of raysp's", "name another file with --store")


@contextmanager
def explaining(path: Path) -> Generator[None]:
    """Turns DuckDB's and the system's errors on a store into UserError; ConstraintException, a matter between tables, passes."""
    try:
        yield
    except duckdb.ConstraintException:
        raise
    except (duckdb.Error, OSError) as error:
        raise explained(path, error) from None


def sql_failure(error: Exception) -> UserError:
    """The one line for a query that DuckDB refused: its first line, and its hint where it gives one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    problem = re.sub(r"^[A-Za-z]+ Error:\s*", "", lines[0]).rstrip(" !.") if lines else type(error).__name__
    hint = next((line for line in lines[1:] if line.startswith(("Did you mean", "Candidate bindings", "HINT", "Hint"))), None)
    return UserError("sql", None, problem, hint or "SHOW TABLES and DESCRIBE <table> list what there is")


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "no message")
