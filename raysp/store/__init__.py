"""The store: the only code that speaks to DuckDB. It knows nothing of models, explorers or Ray."""

from raysp.store.export import plain, write_table
from raysp.store.store import Store

__all__ = ["Store", "plain", "write_table"]
