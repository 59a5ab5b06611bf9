"""Explorers: algorithms that choose the masks to measure and explain their values."""

from raysp.explorers.base import Explorer, Findings
from raysp.explorers.exhaustive import Exhaustive
from raysp.explorers.proxyspex import ProxySPEX
from raysp.explorers.screen import Screen
from raysp.explorers.singles import Singles, fit_singles
from raysp.explorers.spex import SPEX
from raysp.specs.explorers import ExplorerOptions
from raysp.spectral.regression import r_squared

#: The explorers by their names in specs.
EXPLORERS: dict[str, type[Explorer]] = {"screen": Screen, "proxyspex": ProxySPEX, "spex": SPEX, "singles": Singles, "exhaustive": Exhaustive}


def explorer_of(options: ExplorerOptions) -> Explorer:
    """Create the explorer for the given options."""
    return EXPLORERS[options.kind].of(options)


__all__ = ["EXPLORERS", "SPEX", "Exhaustive", "Explorer", "Findings", "ProxySPEX", "Screen", "Singles", "explorer_of", "fit_singles", "r_squared"]
