"""Exact tables of the embedded model that `python -m jobs.bench indices` has kept."""

from jobs.bench.indices import games
from jobs.bench.kept import read
from jobs.bench.verdict_games import Table
from raysp.home import home
from raysp.masks import pack
from raysp.spectral.walsh import all_masks


def kept_tables() -> tuple[Table, ...]:
    """The tables that are complete; nothing is measured. The model is loaded if any values are kept, as their names depend on it."""
    if not (home() / "bench").is_dir():
        return ()
    found: list[Table] = []
    for name, (n, build) in games().items():
        folder = home() / "bench" / build().name()
        known = read(folder) if folder.is_dir() else {}
        masks = [row.tobytes() for row in pack(all_masks(n))]
        if all(mask in known for mask in masks):
            import numpy as np

            found.append(Table(name, n, np.array([known[mask] for mask in masks])))
    return tuple(found)
