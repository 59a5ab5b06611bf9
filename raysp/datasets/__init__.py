"""Prompt sets, training sets and corpora: rows read from files and the hub, and their grouping into components. Knows nothing of tokens or models."""
