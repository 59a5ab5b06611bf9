"""The store: the only code that uses DuckDB. It does not depend on models, explorers or Ray."""

from raysp.store.additions import Addition
from raysp.store.confined import ConfinedPool, ask_confined
from raysp.store.export import plain, rows, write_table
from raysp.store.failures import missing
from raysp.store.questions import Answer, Limits
from raysp.store.removal import Cleaning, Removal, Spared, compact
from raysp.store.store import Store
from raysp.store.surrogates import RunSurrogates

__all__ = [
    "Addition",
    "Answer",
    "Cleaning",
    "ConfinedPool",
    "Limits",
    "Removal",
    "RunSurrogates",
    "Spared",
    "Store",
    "ask_confined",
    "compact",
    "missing",
    "plain",
    "rows",
    "write_table",
]
