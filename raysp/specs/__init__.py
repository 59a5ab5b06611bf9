"""Specifications of runs, lenses and explorers, validated, from YAML, flags or Python. Loads no model and opens no store."""
