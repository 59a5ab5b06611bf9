"""Runs one benchmark: `python -m jobs.bench engine --quick`. Options after the name belong to the benchmark; `--help` after the name lists them."""

import sys
from importlib import import_module

#: The benchmarks, each a module of this package with a `main`.
NAMES = (
    "context",
    "data",
    "designs",
    "engine",
    "feature",
    "indices",
    "intact",
    "intervals",
    "map",
    "mechanistic",
    "memory",
    "service",
    "slopes",
    "verdicts",
    "web",
)


def main() -> int | None:
    """Run the benchmark named first; exit code 2 if there is none of that name."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.stderr.write(f"usage: python -m jobs.bench {{{','.join(NAMES)}}} [options]\n")
        return 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m jobs.bench {name}"
    return import_module(f"jobs.bench.{name}").main()


if __name__ == "__main__":
    sys.exit(main())
