"""Benchmarks: what raysp is worth beside its peers, as ratios measured side by side. Start one with `python -m jobs.bench NAME --quick`."""
