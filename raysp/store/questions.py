"""User SQL: a single statement that only reads, with a time limit."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import duckdb

from raysp.errors import UserError
from raysp.store.failures import sql_failure
from raysp.store.packing import Table

READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
TIMEOUT_SECONDS = 60.0


def ask(cur: duckdb.DuckDBPyConnection, query: str, timeout_s: float = TIMEOUT_SECONDS) -> Table:
    """Return the answer to one SELECT-like statement. Raises UserError for any other statement, for SQL errors, and after `timeout_s` seconds.

    It runs in a read-only transaction on a connection with a locked configuration and no access to other files;
    the check of the statement's type only improves the message, and safety does not depend on it.
    """
    _check(cur, query)
    timer = threading.Timer(timeout_s, cur.interrupt)
    timer.daemon = True
    timer.start()
    try:
        return _answer(cur, query)
    except duckdb.InterruptException:
        raise UserError("sql", None, f"took longer than {timeout_s:g} s and was stopped", "narrow it with WHERE or LIMIT") from None
    except duckdb.Error as error:
        raise sql_failure(error) from None
    finally:
        timer.cancel()


def _answer(cur: duckdb.DuckDBPyConnection, query: str) -> Table:
    cur.execute("BEGIN TRANSACTION READ ONLY")
    try:
        relation: Any = cur.sql(query)
        found = relation.to_arrow_table()
        return found.rename_columns(_distinct(found.column_names))
    finally:
        cur.execute("ROLLBACK")


def _distinct(names: Sequence[str]) -> list[str]:
    """Rename duplicate columns, which joins can produce: n, n_1."""
    found: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        found.append(next(each for each in candidates if each not in found and (each == name or each not in names)))
    return found


def _check(cur: duckdb.DuckDBPyConnection, query: str) -> None:
    try:
        statements = cur.extract_statements(query)
    except duckdb.Error as error:
        raise sql_failure(error) from None
    if len(statements) != 1:
        raise UserError("sql", None, f"holds {len(statements)} statements", "give one statement at a time")
    if statements[0].type not in READING:
        kind = str(statements[0].type).rsplit(".", 1)[-1]
        raise UserError(
            "sql", None, f"{kind} is not allowed, because queries may only read the store", "begin with SELECT, FROM, WITH, DESCRIBE, SHOW or EXPLAIN"
        )
