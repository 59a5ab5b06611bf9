"""Prompt sets, training sets and corpora: rows read from files and hubs, and how they are grouped. Knows nothing of tokens or models."""
