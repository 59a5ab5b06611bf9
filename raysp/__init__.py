"""raysp: which components of a language model's input, mechanism or training, alone and together, made it say so.

The public names are imported when they are first used, so that `import raysp` and the command line answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raysp.version import __version__

if TYPE_CHECKING:
    from raysp.errors import EvaluationError, InterruptedRunError, UserError
    from raysp.explorers import SPEX, Exhaustive, ProxySPEX, Screen, Singles
    from raysp.game import Component, Game
    from raysp.lenses import build_game
    from raysp.remote.service import RemoteService, connect
    from raysp.report.page import write_report
    from raysp.runs.result import Result, read_result
    from raysp.runtime.engine import run, run_all
    from raysp.specs.lenses import DataLens, FeatureLens, FunctionLens, MechanisticLens
    from raysp.specs.run import RunSpec, load_spec
    from raysp.spectral.fourier import FourierSurrogate
    from raysp.spectral.removals import greedy_removals, measured_removals
    from raysp.spectral.selection import best_subset, removal_curve
    from raysp.store import Store
    from raysp.validation import Validation

_HOMES = {
    "raysp.errors": ("EvaluationError", "InterruptedRunError", "UserError"),
    "raysp.explorers": ("SPEX", "Exhaustive", "ProxySPEX", "Screen", "Singles"),
    "raysp.game": ("Component", "Game"),
    "raysp.lenses": ("build_game",),
    "raysp.specs.lenses": ("DataLens", "FeatureLens", "FunctionLens", "MechanisticLens"),
    "raysp.remote.service": ("RemoteService", "connect"),
    "raysp.report.page": ("write_report",),
    "raysp.runs.result": ("Result", "read_result"),
    "raysp.runtime.engine": ("run", "run_all"),
    "raysp.specs.run": ("RunSpec", "load_spec"),
    "raysp.spectral.fourier": ("FourierSurrogate",),
    "raysp.spectral.removals": ("greedy_removals", "measured_removals"),
    "raysp.spectral.selection": ("best_subset", "removal_curve"),
    "raysp.store": ("Store",),
    "raysp.validation": ("Validation",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SPEX",
    "Component",
    "DataLens",
    "EvaluationError",
    "Exhaustive",
    "FeatureLens",
    "FourierSurrogate",
    "FunctionLens",
    "Game",
    "InterruptedRunError",
    "MechanisticLens",
    "ProxySPEX",
    "RemoteService",
    "Result",
    "RunSpec",
    "Screen",
    "Singles",
    "Store",
    "UserError",
    "Validation",
    "__version__",
    "best_subset",
    "build_game",
    "connect",
    "greedy_removals",
    "load_spec",
    "measured_removals",
    "read_result",
    "removal_curve",
    "run",
    "run_all",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'raysp' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
