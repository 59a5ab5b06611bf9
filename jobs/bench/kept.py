"""Slow values kept between runs of a benchmark under `raysp.home.home()/bench`: a folder for each function, an npz file for each block of masks.

Folders are named after the function's fingerprint, files after the hash of their masks. Removing folders is safe.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raysp.home import home
from raysp.masks import Masks, pack

#: Masks evaluated and written at a time, which bounds what an interrupted run can lose.
BLOCK = 256


@dataclass
class Kept:
    """A function of masks, `(m, n)` to `(m,)` or `(m, k)`, whose values are kept in files. `name` is asked for when the first value is.

    `paid` masks took `seconds` in this process; `watch` is told after each block, with the number of masks done and the total.
    """

    name: Callable[[], str]
    function: Callable[[Masks], Any]
    block: int = BLOCK
    root: Path | None = None
    watch: Callable[["Kept", int, int], None] | None = None
    paid: int = field(init=False, default=0)
    seconds: float = field(init=False, default=0.0)
    _known: dict[bytes, Any] | None = field(init=False, repr=False, default=None)

    def __call__(self, masks: Masks) -> Any:
        """Values of masks, float64 `(m,)` or `(m, k)`, those not yet known computed and written block by block."""
        folder = (self.root or home() / "bench") / self.name()
        known = read(folder) if self._known is None else self._known
        self._known = known
        names = [row.tobytes() for row in pack(masks)]
        missing = np.array(sorted({name: i for i, name in enumerate(names) if name not in known}.values()), dtype=np.intp)
        for start in range(0, len(missing), self.block):
            rows = missing[start : start + self.block]
            began = time.perf_counter()
            values = np.asarray(self.function(masks[rows]), dtype=np.float64)
            self.seconds += time.perf_counter() - began
            self.paid += len(rows)
            _write(folder, masks[rows], values)
            known.update(zip((names[i] for i in rows), values, strict=True))
            if self.watch is not None:
                self.watch(self, start + len(rows), len(missing))
        return np.array([known[name] for name in names])


def read(folder: Path) -> dict[bytes, Any]:
    """The values kept in a folder, by packed mask."""
    known: dict[bytes, Any] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as block:
            known.update(zip((row.tobytes() for row in block["masks"]), block["values"], strict=True))
    return known


def _write(folder: Path, masks: Masks, values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    packed = pack(masks)
    path = folder / f"{hashlib.sha256(packed.tobytes()).hexdigest()[:32]}.npz"
    # Written atomically: another process may read the folder, and this one may be stopped.
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, masks=packed, values=values)
    partial.replace(path)
