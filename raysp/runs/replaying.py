"""A run that is done, gone through again without paying: its explorer asks as it did, and the store answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raysp.errors import UserError
from raysp.runs.gradients import Gradients
from raysp.runs.run import start_explorer
from raysp.spectral.fourier import FourierSurrogate

if TYPE_CHECKING:
    from raysp.explorers.base import Explorer
    from raysp.game import Game
    from raysp.masks import Masks, Values
    from raysp.specs.run import RunSpec
    from raysp.store import Store


def replayed(store: Store, row: dict[str, Any], spec: RunSpec, game: Game) -> Explorer:
    """The run's explorer, told what it was told. UserError where the store lacks a value."""
    explorer = Gradients(store, game).inform(start_explorer(spec, game.info), spec.lens)
    while not explorer.done():
        masks = explorer.ask()
        values = store.known(row["game_id"], masks)
        if missing := int(np.isnan(values).sum()):
            raise UserError("run", row["run_id"], f"would ask {missing} of {len(masks)} masks that the store has no value of", "run it again")
        outputs = store.outputs(row["game_id"], masks) if game.info.queries else None
        explorer.tell(masks, values if outputs is None or np.isnan(outputs).any() else outputs)
    return explorer


def surrogate_of(explorer: Explorer) -> FourierSurrogate:
    """What a run's explorer made of its values; UserError for an explorer that makes nothing to choose by."""
    surrogate = explorer.result().surrogate
    if not isinstance(surrogate, FourierSurrogate):
        raise UserError("explorer", explorer.name, "leaves nothing to choose by", "ask again with explorer proxyspex")
    return surrogate


def learnt(explorer: Explorer) -> tuple[Masks, Values, float]:
    """The rows that its surrogate is fitted to, with their P(keep). UserError as `surrogate_of`."""
    surrogate_of(explorer)
    sample = explorer.sample()
    return sample.masks, sample.values, sample.keep_probability
