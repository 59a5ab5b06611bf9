"""How the masks of a round are divided: batches that fill the game's own, several where they take little time, and two for every worker."""

import numpy as np
import pytest
from answered_games import N, planted

import raysp
from raysp.game import Measurement
from raysp.lenses import build_game
from raysp.runs import run as run_module
from raysp.runs.backend import batches
from raysp.runs.local import LocalBackend
from raysp.runtime.backend import MOST_CELLS, MOST_TOGETHER, ORDER_SECONDS, ORDERS_PER_SECOND, Pace
from raysp.runtime.messages import Told


def sizes(rows, *, batch_masks, workers=1, together=1):
    """The sizes of the batches of so many masks; every mask is in one of them, in order."""
    packed = np.arange(2 * rows, dtype=np.uint8).reshape(rows, 2)
    backend = LocalBackend(build_game(raysp.FunctionLens(planted, n=N, batch_masks=int(batch_masks))))
    backend.workers, backend.together = workers, together
    found = list(batches(backend, packed, np.arange(rows), "explore"))
    np.testing.assert_array_equal(np.concatenate([batch.packed for batch in found]), packed)
    assert np.concatenate([batch.positions for batch in found]).tolist() == list(range(rows))
    return [len(batch.packed) for batch in found]


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        (100, {"batch_masks": 64}, [64, 36]),
        (100, {"batch_masks": 64, "workers": 2}, [25, 25, 25, 25]),
        (40, {"batch_masks": 64, "workers": 8}, [16, 16, 8]),  # smaller ones would not fill a model's batch
        (100, {"batch_masks": 10, "together": 3}, [30, 30, 20, 10, 10]),  # fewer together towards the end
        (100, {"batch_masks": 10, "together": 3, "workers": 2}, [20, 20, *[10] * 6]),
    ],
)
def test_the_sizes_of_batches(rows, options, expected):
    assert sizes(rows, **options) == expected


@pytest.mark.parametrize("seed", range(5))
def test_batches_given_together_are_those_given_one_by_one(seed):
    """So a service measures the same batches as one process."""
    rng = np.random.default_rng(seed)
    rows, batch_masks, workers, together = rng.integers(1, [500, 20, 6, 9])
    alone = np.cumsum(sizes(rows, batch_masks=batch_masks, workers=workers))
    assert set(np.cumsum(sizes(rows, batch_masks=batch_masks, workers=workers, together=together))) <= set(alone)


def test_orders_become_as_large_as_the_time_that_masks_take_allows():
    def told(masks, seconds, *, reused=False):
        return Told(1, 0, np.arange(masks), Measurement(np.zeros(masks), 0, seconds), None, stored=True, reused=reused)

    def game(n, batch_masks):
        return build_game(raysp.FunctionLens(planted, n=n, batch_masks=batch_masks)).info

    pace, small, many = Pace(), game(64, 16), 1000
    assert pace.together([], small, many) == 1  # nothing is known yet
    assert pace.together([told(16, 0.0, reused=True)], small, many) == 1
    assert pace.together([told(16, ORDER_SECONDS / 8)], small, many) == 8
    assert pace.together([], small, round(ORDERS_PER_SECOND * ORDER_SECONDS / 2)) == 4  # few evaluators answer often enough with smaller orders
    assert pace.together([told(16, 100.0)], small, many) == 1
    assert Pace().together([told(16, 1e-6)], small, many) == MOST_TOGETHER
    assert Pace().together([told(4096, 1e-6)], game(90, 4096), many) == MOST_CELLS // (4096 * 90) == 2
    assert Pace().together([told(4096, 1e-6)], game(5000, 4096), many) == 1


def test_a_preview_is_fitted_to_some_of_the_evaluations(monkeypatch):
    """The time it takes does not grow with the run."""
    looked_at = []
    monkeypatch.setattr(run_module, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(run_module, "PREVIEW_ROWS", 200)
    monkeypatch.setattr("raysp.explorers.fitting.quick_r2", lambda masks, values, _: looked_at.append((masks, values)))
    raysp.run(raysp.RunSpec(lens=raysp.FunctionLens(planted, n=N, batch_masks=64), explorer=raysp.ProxySPEX(budget=600, max_order=3), seed=1, local=True))
    assert max(len(values) for _, values in looked_at) == 200
    for masks, values in looked_at:
        np.testing.assert_allclose(planted(masks), values)
