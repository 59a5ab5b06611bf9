"""Benchmarks of raysp against public implementations, as ratios measured side by side. Run one with `python -m jobs.bench NAME --quick`."""
