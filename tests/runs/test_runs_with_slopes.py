"""Runs of explorers that ask for slopes: what is measured, what it costs, what is told, and that an answer does not depend on what was stored before."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from asked_games import AskedGame, planted
from sloping_games import Curious, N, Sloping, starting, told

import raysp
from raysp.explorers import ProxySPEX
from raysp.explorers.base import Explorer
from raysp.runs.local import LocalBackend
from raysp.runs.plan import plan_run
from raysp.runs.run import Run
from raysp.runs.slopes import TIMED
from raysp.specs.lenses import FunctionLens
from raysp.specs.run import RunSpec
from raysp.store import Store


@pytest.fixture
def curious(monkeypatch):
    """The explorers that runs start."""
    started = []
    monkeypatch.setattr("raysp.runs.run.explorer_of", starting(started))
    return started


def spec():
    return RunSpec(lens=FunctionLens(len, n=N, name="sloping"), explorer=ProxySPEX(budget=96, max_order=2), seed=3, local=True)


def execute(store, game, run_id="r", **hooks):
    Run(spec(), LocalBackend(game), store, run_id, **hooks).execute()


def cost(store, run_id, phase):
    return next(row for row in store.run_table("costs", run_id).to_pylist() if row["phase"] == phase)


def test_an_explorer_is_told_the_slopes_that_it_asks_for(tmp_path, curious):
    game = Sloping()
    with Store.open(tmp_path / "s.duckdb") as store:
        execute(store, game)
        masks, values, slopes = told(curious)
        assert len(masks) == Curious.rounds
        for number in range(Curious.rounds):
            np.testing.assert_allclose(values[number][:, 0], game.value(masks[number]))
            if number % 2:
                assert slopes[number] is None
            else:
                np.testing.assert_array_equal(slopes[number], game.slope(masks[number]))
                np.testing.assert_array_equal(store.slopes(store.game_id("r"), masks[number]), game.slope(masks[number]))


def test_the_price_is_measured_once_a_game_and_counted(tmp_path, curious):
    game, again = Sloping(), Sloping()
    with Store.open(tmp_path / "s.duckdb") as store:
        execute(store, game)
        assert next(explorer for explorer in curious if explorer._masks).price == 2.4
        assert store.slope_price(game.info.fingerprint) == 2.4
        assert game.calls[:4] == [(1, False), (1, True), (TIMED, False), (TIMED, True)]
        calibrated = cost(store, "r", "calibrate")
        assert (calibrated["evaluations"], calibrated["with_slopes"]) == (2 * TIMED + 2, TIMED)
        assert calibrated["seconds"] == pytest.approx(3.5 * (TIMED + 1))
        explored = cost(store, "r", "explore")
        # The masks that were timed are among the first that the explorer asks for.
        assert (explored["evaluations"], explored["reused"], explored["with_slopes"]) == (4 * 24 + 2 - TIMED, TIMED, 2 * 24 - TIMED)
        execute(store, again, "again")
        assert again.calls == []
        assert next(explorer for explorer in reversed(curious) if explorer._masks).price == 2.4


def test_a_game_without_slopes_and_an_explorer_without_use_for_them_measure_values_alone(tmp_path, monkeypatch):
    game = Sloping()
    with Store.open(tmp_path / "s.duckdb") as store:
        monkeypatch.setattr("raysp.runs.run.explorer_of", lambda options: Plain(**options.model_dump(exclude={"kind"}, exclude_unset=True)))
        execute(store, game)
        assert {slopes for _, slopes in game.calls} == {False}
        assert store.slope_price(game.info.fingerprint) is None


class Plain(ProxySPEX):
    """As an explorer that knows nothing of slopes."""

    uses_slopes = Explorer.uses_slopes
    asks_slopes = Explorer.asks_slopes


def test_a_game_without_slopes_is_not_asked_for_them(tmp_path, curious):
    game = Sloping(slopes=False)
    with Store.open(tmp_path / "s.duckdb") as store:
        execute(store, game)
        assert {slopes for _, slopes in game.calls} == {False}
        assert all(explorer.price is None for explorer in curious)


def test_values_that_were_stored_without_slopes_are_measured_again_and_stay(tmp_path, curious, monkeypatch):
    with Store.open(tmp_path / "s.duckdb") as store:
        with monkeypatch.context() as patched:
            patched.setattr(Curious, "asks_slopes", False)
            execute(store, Sloping(), "values")
        game = Sloping(error=1.0)
        execute(store, game, "slopes")
        masks, values, slopes = told(curious)
        np.testing.assert_allclose(np.concatenate(values[1:])[:, 0], game.value(np.concatenate(masks[1:])))
        np.testing.assert_array_equal(slopes[2], game.slope(masks[2]))
        explored = cost(store, "slopes", "explore")
        assert explored["evaluations"] == explored["with_slopes"] == sum(size for size, sloped in game.calls if sloped)


def test_a_run_that_is_resumed_equals_one_that_was_not_interrupted(tmp_path, curious):
    stopped = []

    def cancelled(after):
        stopped.append(None)
        return len(stopped) > after

    with Store.open(tmp_path / "whole.duckdb") as store:
        execute(store, Sloping())
        expected, whole = told(curious), store.run_evaluations("r")
    with Store.open(tmp_path / "parts.duckdb") as store:
        with pytest.raises(raysp.errors.InterruptedRunError):
            execute(store, Sloping(), cancelled=partial(cancelled, 3))
        game = Sloping()
        execute(store, game)
        for found, wanted in zip(told(curious), expected, strict=True):
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)
        assert sorted(store.run_evaluations("r")["value"].to_pylist()) == sorted(whole["value"].to_pylist())
        assert store.sql("SELECT count(*) AS c, count(DISTINCT evaluation_id) AS d FROM slopes").to_pylist() == [{"c": 48, "d": 48}]
        assert cost(store, "r", "explore")["with_slopes"] == 48 - TIMED


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        (lambda slopes: np.where(np.arange(N) == 3, np.nan, slopes).astype(np.float32), raysp.EvaluationError, "slopes: .*non-finite"),
        (lambda slopes: slopes[:, 0], ValueError, "gave slopes of shape"),
        (lambda _: None, ValueError, "gave slopes of shape None"),
    ],
    ids=["not finite", "another shape", "none"],
)
def test_slopes_that_are_not_what_they_should_be_end_the_run(tmp_path, curious, broken, error, says):
    with Store.open(tmp_path / "s.duckdb") as store:
        store.add_slope_price(Sloping().info, 2.0)
        with pytest.raises(error, match=says):
            execute(store, Sloping(broken=broken))
        assert store.run_row("r")["status"] == "failed"
        assert store.sql("SELECT count(*) AS c FROM slopes")["c"].to_pylist() == [0]


def test_each_query_has_slopes_of_its_own(tmp_path, curious):
    class Asked(AskedGame):
        """A training set whose outputs change by known amounts."""

        def __init__(self):
            super().__init__()
            self.info = dataclasses.replace(self.info, slopes=True)

        def measure(self, masks, *, slopes=False):
            found = super().measure(masks)
            tangents = np.tile(np.asarray(masks, dtype=np.float32)[:, None], (1, 3, 1)) * np.arange(3, dtype=np.float32)[:, None]
            return dataclasses.replace(found, slopes=tangents if slopes else None)

    with Store.open(tmp_path / "s.duckdb") as store:
        execute(store, Asked())
        last = next(explorer for explorer in reversed(curious) if explorer._masks)
        np.testing.assert_array_equal(last._outputs[0], planted(last._masks[0]))
        np.testing.assert_array_equal(last._slopes[0], last._masks[0][:, None] * np.arange(3)[:, None])
        assert last._slopes[1] is None


def test_a_plan_measures_the_price_that_the_run_then_finds(tmp_path, curious):
    with Store.open(tmp_path / "s.duckdb") as store:
        game = Sloping()
        plan_run(spec(), store, LocalBackend(game))
        assert store.slope_price(game.info.fingerprint) == 2.4
        again = Sloping()
        execute(store, again)
        assert (1, True) not in again.calls
