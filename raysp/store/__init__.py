"""The only code that speaks to DuckDB."""
