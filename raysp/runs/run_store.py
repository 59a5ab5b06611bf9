"""The store as a run sees it: the methods that it needs, whether the store is open in its process or in another one."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raysp.game import Component, GameInfo
from raysp.gradients import GradientReport
from raysp.masks import Masks, Values
from raysp.spectral.fourier import FourierSurrogate
from raysp.store import RunSurrogates
from raysp.store.history import Earlier
from raysp.store.packing import Table


class RunStore(Protocol):
    """Part of `raysp.store.Store`; each method is documented there."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        ...

    def register_game(self, info: GameInfo) -> int:
        """As `raysp.store.Store.register_game`."""
        ...

    def game_id(self, run_id: str) -> int:
        """As `raysp.store.Store.game_id`."""
        ...

    def has_requests(self, run_id: str) -> bool:
        """As `raysp.store.Store.has_requests`."""
        ...

    def run_row(self, run_id: str) -> dict[str, Any]:
        """As `raysp.store.Store.run_row`."""
        ...

    def start_run(
        self, run_id: str, spec_json: str, info: GameInfo, *, lens: str, explorer: str, seed: int, name: str | None = None, set_name: str | None = None
    ) -> int:
        """As `raysp.store.Store.start_run`."""
        ...

    def finish_run(self, run_id: str, status: str, summary: Mapping[str, Any], surrogate: RunSurrogates | None = None, **tables: Table | None) -> None:
        """As `raysp.store.Store.finish_run`."""
        ...

    def set_status(self, run_id: str, status: str, error: str | None = None) -> None:
        """As `raysp.store.Store.set_status`."""
        ...

    def add_evaluations(
        self,
        run_id: str,
        phase: str,
        masks: Masks,
        values: Values,
        *,
        in_round: int = 0,
        positions: NDArray[np.int32] | None = None,
        tokens: float = 0,
        seconds: float = 0.0,
        outputs: NDArray[np.float64] | None = None,
        slopes: NDArray[np.float32] | None = None,
        game_id: int | None = None,
    ) -> int:
        """As `raysp.store.Store.add_evaluations`."""
        ...

    def add_reused(self, run_id: str, phase: str, masks: Masks, *, in_round: int = 0, positions: NDArray[np.int32] | None = None) -> None:
        """As `raysp.store.Store.add_reused`."""
        ...

    def add_cost(self, run_id: str, phase: str, *, evaluations: int = 0, tokens: float = 0, seconds: float = 0.0, wall_seconds: float = 0.0) -> None:
        """As `raysp.store.Store.add_cost`."""
        ...

    def add_event(self, run_id: str | None, kind: str, message: str) -> None:
        """As `raysp.store.Store.add_event`."""
        ...

    def known(self, game_id: int, masks: Masks) -> Values:
        """As `raysp.store.Store.known`."""
        ...

    def outputs(self, game_id: int, masks: Masks) -> NDArray[np.float64]:
        """As `raysp.store.Store.outputs`."""
        ...

    def slopes(self, game_id: int, masks: Masks) -> NDArray[np.float32]:
        """As `raysp.store.Store.slopes`."""
        ...

    def earlier(self, run_id: str) -> list[Earlier]:
        """As `raysp.store.Store.earlier`."""
        ...

    def slope_price(self, fingerprint: str) -> float | None:
        """As `raysp.store.Store.slope_price`."""
        ...

    def add_slope_price(self, info: GameInfo, price: float) -> None:
        """As `raysp.store.Store.add_slope_price`."""
        ...

    def gradient_report(self, fingerprint: str) -> GradientReport | None:
        """As `raysp.store.Store.gradient_report`."""
        ...

    def add_gradient_report(self, info: GameInfo, report: GradientReport) -> None:
        """As `raysp.store.Store.add_gradient_report`."""
        ...

    def numeric_noise(self, fingerprint: str, keep_probability: float) -> dict[str, Any] | None:
        """As `raysp.store.Store.numeric_noise`."""
        ...

    def add_numeric_noise(self, fingerprint: str, keep_probability: float, figures: Mapping[str, Any]) -> None:
        """As `raysp.store.Store.add_numeric_noise`."""
        ...


class ActionStore(RunStore, Protocol):
    """Part of `raysp.store.Store` that plans, predictions and actions on finished runs need besides; each method is documented there."""

    def blob(self, digest: str) -> bytes | None:
        """As `raysp.store.Store.blob`."""
        ...

    def find_run(self, wanted: str) -> str:
        """As `raysp.store.Store.find_run`."""
        ...

    def find_game(self, fingerprint: str) -> int | None:
        """As `raysp.store.Store.find_game`."""
        ...

    def components(self, game_id: int) -> tuple[Component, ...]:
        """As `raysp.store.Store.components`."""
        ...

    def pace(self, game_id: int) -> tuple[int, float]:
        """As `raysp.store.Store.pace`."""
        ...

    def surrogate(self, run_id: str, query: int | None = None) -> FourierSurrogate:
        """As `raysp.store.Store.surrogate`."""
        ...

    def keep_probability(self, run_id: str) -> float:
        """As `raysp.store.Store.keep_probability`."""
        ...

    def fitted_evaluations(self, run_id: str) -> tuple[Masks, Values]:
        """As `raysp.store.Store.fitted_evaluations`."""
        ...

    def run_evaluations(self, run_id: str, phase: str | None = None) -> Table:
        """As `raysp.store.Store.run_evaluations`."""
        ...

    def run_masks(self, run_id: str, phase: str | None = None) -> Masks:
        """As `raysp.store.Store.run_masks`."""
        ...

    def run_outputs(self, run_id: str, phase: str | None = None) -> NDArray[np.float64]:
        """As `raysp.store.Store.run_outputs`."""
        ...

    def run_table(self, name: str, run_id: str) -> Table:
        """As `raysp.store.Store.run_table`."""
        ...

    def replace_data_scores(self, run_id: str, rows: Table) -> None:
        """As `raysp.store.Store.replace_data_scores`."""
        ...

    def add_prunings(self, run_id: str, rows: Table) -> None:
        """As `raysp.store.Store.add_prunings`."""
        ...

    def add_selections(self, run_id: str, rows: Table) -> None:
        """As `raysp.store.Store.add_selections`."""
        ...

    def add_blobs(self, contents: Iterable[bytes]) -> None:
        """As `raysp.store.Store.add_blobs`."""
        ...
