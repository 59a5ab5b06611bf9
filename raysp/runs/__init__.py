"""Runs: a question, from its spec to a validated and stored answer. This package does not depend on Ray or on models."""
