"""The store: the only code that uses DuckDB. It does not depend on models, explorers or Ray."""

from raysp.store.additions import Addition
from raysp.store.export import plain, write_table
from raysp.store.store import Store
from raysp.store.surrogates import RunSurrogates

__all__ = ["Addition", "RunSurrogates", "Store", "plain", "write_table"]
