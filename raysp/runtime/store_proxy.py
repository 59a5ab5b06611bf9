"""The store of a run that another process executes: the scheduler, which owns the file, carries out the calls."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.game import Component, GameInfo
from raysp.gradients import GradientReport
from raysp.masks import Masks, Values, pack, unpack
from raysp.runtime.link import Link
from raysp.spectral.fourier import FourierSurrogate
from raysp.store import RunSurrogates, Store
from raysp.store.history import Earlier
from raysp.store.packing import Table

#: Masks that are sent to be looked up or recorded at a time.
CHUNK = 8192


class StoreProxy:
    """`raysp.runs.run_store.ActionStore` over the scheduler's calls, for the store at `path`. Methods are those of `raysp.store.Store`."""

    read_only = False

    def __init__(self, link: Link, path: Path) -> None:
        self.path = path
        self._link = link

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self._link.call("store_call", self.path, method, arguments, named)

    def register_game(self, info: GameInfo) -> int:
        """As `Store.register_game`."""
        return self._call("register_game", info)

    def game_id(self, run_id: str) -> int:
        """As `Store.game_id`."""
        return self._call("game_id", run_id)

    def has_requests(self, run_id: str) -> bool:
        """As `Store.has_requests`."""
        return self._call("has_requests", run_id)

    def run_row(self, run_id: str) -> dict[str, Any]:
        """As `Store.run_row`."""
        return self._call("run_row", run_id)

    def start_run(
        self, run_id: str, spec_json: str, info: GameInfo, *, lens: str, explorer: str, seed: int, name: str | None = None, set_name: str | None = None
    ) -> int:
        """As `Store.start_run`."""
        return self._call("start_run", run_id, spec_json, info, lens=lens, explorer=explorer, seed=seed, name=name, set_name=set_name)

    def finish_run(self, run_id: str, status: str, summary: Mapping[str, Any], surrogate: RunSurrogates | None = None, **tables: Table | None) -> None:
        """As `Store.finish_run`."""
        self._call("finish_run", run_id, status, summary, surrogate, **tables)

    def set_status(self, run_id: str, status: str, error: str | None = None) -> None:
        """Do nothing: the scheduler records how a run ended, once it has told it so."""

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
        """As `Store.add_evaluations`."""
        cost = {"tokens": tokens, "seconds": seconds}
        named = {"in_round": in_round, "positions": positions, "outputs": outputs, "slopes": slopes, "game_id": game_id}
        return self._call("add_evaluations", run_id, phase, masks, values, **cost, **named)

    def add_reused(self, run_id: str, phase: str, masks: Masks, *, in_round: int = 0, positions: NDArray[np.int32] | None = None) -> None:
        """As `Store.add_reused`, one transaction for some thousand masks."""
        placed = np.arange(len(masks), dtype=np.int32) if positions is None else positions
        for start in range(0, len(masks), CHUNK):
            some = slice(start, start + CHUNK)
            self._call("add_reused", run_id, phase, Packed.of(masks[some]), in_round=in_round, positions=placed[some])

    def add_cost(self, run_id: str, phase: str, *, evaluations: int = 0, tokens: float = 0, seconds: float = 0.0, wall_seconds: float = 0.0) -> None:
        """As `Store.add_cost`."""
        self._call("add_cost", run_id, phase, evaluations=evaluations, tokens=tokens, seconds=seconds, wall_seconds=wall_seconds)

    def add_event(self, run_id: str | None, kind: str, message: str) -> None:
        """As `Store.add_event`."""
        self._call("add_event", run_id, kind, message)

    def known(self, game_id: int, masks: Masks) -> Values:
        """As `Store.known`."""
        return self._by_chunks("known", game_id, masks, np.empty(0))

    def outputs(self, game_id: int, masks: Masks) -> NDArray[np.float64]:
        """As `Store.outputs`."""
        return self._by_chunks("outputs", game_id, masks, np.empty((0, 0)))

    def slopes(self, game_id: int, masks: Masks) -> NDArray[np.float32]:
        """As `Store.slopes`."""
        return self._by_chunks("slopes", game_id, masks, np.empty((0, 1, masks.shape[1]), dtype=np.float32))

    def earlier(self, run_id: str) -> list[Earlier]:
        """As `Store.earlier`."""
        return self._call("earlier", run_id)

    def slope_price(self, fingerprint: str) -> float | None:
        """As `Store.slope_price`."""
        return self._call("slope_price", fingerprint)

    def add_slope_price(self, info: GameInfo, price: float) -> None:
        """As `Store.add_slope_price`."""
        self._call("add_slope_price", info, price)

    def _by_chunks(self, method: str, game_id: int, masks: Masks, nothing: NDArray[Any]) -> NDArray[Any]:
        found = [self._call(method, game_id, Packed.of(masks[start : start + CHUNK])) for start in range(0, len(masks), CHUNK)]
        # What Ray sends is read-only, and one process's arrays are as writable as the next's.
        return np.concatenate(found) if found else nothing

    def blob(self, digest: str) -> bytes | None:
        """As `Store.blob`."""
        return self._call("blob", digest)

    def gradient_report(self, fingerprint: str) -> GradientReport | None:
        """As `Store.gradient_report`."""
        return self._call("gradient_report", fingerprint)

    def add_gradient_report(self, info: GameInfo, report: GradientReport) -> None:
        """As `Store.add_gradient_report`."""
        self._call("add_gradient_report", info, report)

    def numeric_noise(self, fingerprint: str, keep_probability: float) -> dict[str, Any] | None:
        """As `Store.numeric_noise`."""
        return self._call("numeric_noise", fingerprint, keep_probability)

    def add_numeric_noise(self, fingerprint: str, keep_probability: float, figures: Mapping[str, Any]) -> None:
        """As `Store.add_numeric_noise`."""
        self._call("add_numeric_noise", fingerprint, keep_probability, figures)

    def find_run(self, wanted: str) -> str:
        """As `Store.find_run`."""
        return self._call("find_run", wanted)

    def find_game(self, fingerprint: str) -> int | None:
        """As `Store.find_game`."""
        return self._call("find_game", fingerprint)

    def components(self, game_id: int) -> tuple[Component, ...]:
        """As `Store.components`."""
        return self._call("components", game_id)

    def pace(self, game_id: int) -> tuple[int, float]:
        """As `Store.pace`."""
        return self._call("pace", game_id)

    def surrogate(self, run_id: str, query: int | None = None) -> FourierSurrogate:
        """As `Store.surrogate`."""
        return self._call("surrogate", run_id, query)

    def keep_probability(self, run_id: str) -> float:
        """As `Store.keep_probability`."""
        return self._call("keep_probability", run_id)

    def fitted_evaluations(self, run_id: str) -> tuple[Masks, Values]:
        """As `Store.fitted_evaluations`."""
        return self._call("fitted_evaluations", run_id)

    def run_evaluations(self, run_id: str, phase: str | None = None) -> Table:
        """As `Store.run_evaluations`."""
        return self._call("run_evaluations", run_id, phase)

    def run_masks(self, run_id: str, phase: str | None = None) -> Masks:
        """As `Store.run_masks`."""
        return self._call("run_masks", run_id, phase)

    def run_outputs(self, run_id: str, phase: str | None = None) -> NDArray[np.float64]:
        """As `Store.run_outputs`."""
        return self._call("run_outputs", run_id, phase)

    def run_table(self, name: str, run_id: str) -> Table:
        """As `Store.run_table`."""
        return self._call("run_table", name, run_id)

    def replace_data_scores(self, run_id: str, rows: Table) -> None:
        """As `Store.replace_data_scores`."""
        self._call("replace_data_scores", run_id, rows)

    def add_prunings(self, run_id: str, rows: Table) -> None:
        """As `Store.add_prunings`."""
        self._call("add_prunings", run_id, rows)

    def add_selections(self, run_id: str, rows: Table) -> None:
        """As `Store.add_selections`."""
        self._call("add_selections", run_id, rows)

    def add_blobs(self, contents: Iterable[bytes]) -> None:
        """As `Store.add_blobs`."""
        self._call("add_blobs", list(contents))


class Packed:
    """Masks on their way to the scheduler: an eighth of their size."""

    def __init__(self, bits: NDArray[np.uint8], n: int) -> None:
        self.bits, self.n = bits, n

    @classmethod
    def of(cls, masks: Masks) -> "Packed":
        """Masks (bool, `(m, n)`), packed."""
        return cls(pack(masks), masks.shape[1])


#: The methods that other processes may call.
ALLOWED = frozenset(name for name in vars(StoreProxy) if not name.startswith("_"))


def carry_out(store: Store, method: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Call a method of the store for another process."""
    if method not in ALLOWED:
        raise ValueError(f"{method} is no method that another process may call")
    call: Callable[..., Any] = getattr(store, method)
    return call(*(unpack(each.bits, each.n) if isinstance(each, Packed) else each for each in arguments), **named)
