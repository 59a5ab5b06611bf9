"""User SQL: a single statement that only reads, with limits on its time and on the size of its answer."""

import itertools
import math
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from raysp.errors import UserError
from raysp.store.failures import keyboard_interrupts, sql_failure
from raysp.store.packing import Table

READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
TIMEOUT_SECONDS = 60.0
MOST_SECONDS = 86_400.0
BATCH_ROWS = 10_000
#: How long a query may be, and how deeply it may nest, so that it is parsed in less than a second.
MOST_CHARACTERS, MOST_BRACKETS, MOST_WITH = 100_000, 100, 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What the answer to a user's query may take: seconds, rows, bytes of the answer in memory, and bytes of memory for finding it."""

    seconds: float = TIMEOUT_SECONDS
    rows: int | None = None
    bytes: int = 512 << 20
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= MOST_SECONDS):
            raise UserError("timeout", self.seconds, "is not a time that a query may take", f"give seconds, more than 0 and at most {MOST_SECONDS:.0f}")
        if self.rows is not None and self.rows < 1:
            raise UserError("limit", self.rows, "is not a number of rows", "give at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The answer to a query, and whether it has more rows than the limit allowed."""

    table: Table
    truncated: bool = False
    note: str | None = None
    """Which snapshot was read, if one was."""


def ask(cur: duckdb.DuckDBPyConnection, query: str, limits: Limits) -> Answer:
    """Return the answer to one SELECT-like statement. Raises UserError for any other statement, for SQL errors, and beyond the limits except that of rows.

    It runs in a read-only transaction on a connection with a locked configuration and no access to other files;
    the check of the statement's type only improves the message, and safety does not depend on it.
    """
    with answering(cur, query, limits) as (schema, batches):
        kept, more = _within(batches, limits)
        found = pa.Table.from_batches(kept, schema)
        return Answer(found.rename_columns(_apart(found.column_names)), more)


def _within(batches: Iterator[Any], limits: Limits) -> tuple[list[Any], bool]:
    """The batches up to the limit of rows, and whether there are more."""
    kept: list[Any] = []
    rows, size = 0, 0
    for batch in batches:
        if limits.rows is not None and rows + batch.num_rows > limits.rows:
            kept.append(batch.slice(0, limits.rows - rows))
            return kept, True
        kept.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size > limits.bytes:
            raise too_large(limits)
    return kept, False


@contextmanager
def answering(cur: duckdb.DuckDBPyConnection, query: str, limits: Limits) -> Generator[tuple[Any, Iterator[Any]]]:
    """The schema and the record batches of an answer, which are computed as they are taken; errors as `ask`."""
    _check(cur, query)
    timer = threading.Timer(limits.seconds, cur.interrupt)
    timer.daemon = True
    timer.start()
    try:
        cur.execute("BEGIN TRANSACTION READ ONLY")
        try:
            with keyboard_interrupts():
                relation: Any = cur.sql(query)
                with relation.to_arrow_reader(BATCH_ROWS) as reader:  # an open result would keep the transaction from ending
                    yield reader.schema, reader
        finally:
            cur.execute("ROLLBACK")
    except duckdb.InterruptException:
        raise too_slow(limits) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise too_much_memory(limits) from None
    except duckdb.Error as error:
        raise sql_failure(error) from None
    except (pa.ArrowException, OSError) as error:  # DuckDB's errors while rows are fetched arrive by way of Arrow
        if timer.finished.is_set():
            raise too_slow(limits) from None
        raise too_much_memory(limits) if "Out of Memory" in str(error) else sql_failure(error) from None
    finally:
        timer.cancel()


def too_slow(limits: Limits) -> UserError:
    """The error of a query that took too long."""
    return UserError("sql", None, f"took longer than {limits.seconds:g} s and was stopped", "narrow it with WHERE or LIMIT, or give it longer with --timeout")


def too_large(limits: Limits) -> UserError:
    """The error of an answer that is too large."""
    return UserError("sql", None, f"has an answer of more than {limits.bytes >> 20} MiB", "narrow it with WHERE or LIMIT, or use raysp export for whole runs")


def too_much_memory(limits: Limits) -> UserError:
    """The error of a query that needs too much memory."""
    return UserError("sql", None, f"needs more than {limits.memory / 2**30:.3g} GiB of memory and was stopped", "narrow it with WHERE or LIMIT")


def _apart(names: Sequence[str]) -> list[str]:
    """Rename duplicate columns, which joins can produce: n, n_1."""
    found: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        found.append(next(each for each in candidates if each not in found and (each == name or each not in names)))
    return found


def _check_nesting(query: str) -> None:
    """UserError for a query whose parsing takes too long: DuckDB's parser, which cannot be interrupted, tries alternatives for every open bracket.

    Eight open brackets after WITH take it 40 s, and 300 others 2 s.
    """
    text = query.encode()  # places of tokens count bytes
    after_with = [False]  # for every open bracket, whether WITH stands behind it
    for place, kind in duckdb.tokenize(query):
        word = text[place : place + 4].lower()
        if kind == duckdb.token_type.keyword and word == b"with":
            after_with[-1] = True
        elif kind == duckdb.token_type.operator and word[:1] in (b"(", b"[", b"{"):
            after_with.append(False)
        elif kind == duckdb.token_type.operator and word[:1] in (b")", b"]", b"}") and len(after_with) > 1:
            after_with.pop()
        if len(after_with) > MOST_BRACKETS or sum(after_with) > MOST_WITH:
            raise UserError("sql", None, f"nests more than {MOST_BRACKETS} brackets, or WITH more than {MOST_WITH} deep", "name its parts in one WITH")
    if len(after_with) > 1:
        raise UserError("sql", None, f"has {len(after_with) - 1} more opening than closing brackets", "close them")


def _check(cur: duckdb.DuckDBPyConnection, query: str) -> None:
    if len(query) > MOST_CHARACTERS:
        raise UserError("sql", None, f"has {len(query):,} characters", f"give at most {MOST_CHARACTERS:,}")
    try:
        _check_nesting(query)
        statements = cur.extract_statements(query)
    except UnicodeEncodeError:
        raise UserError("sql", None, "is not UTF-8 text", "write the statement in UTF-8") from None
    except duckdb.Error as error:
        raise sql_failure(error) from None
    if len(statements) != 1:
        raise UserError("sql", None, f"holds {len(statements)} statements", "give one statement at a time")
    if statements[0].type not in READING:
        kind = str(statements[0].type).rsplit(".", 1)[-1]
        raise UserError(
            "sql", None, f"{kind} is not allowed, because queries may only read the store", "begin with SELECT, FROM, WITH, DESCRIBE, SHOW or EXPLAIN"
        )
