"""Lenses of actions: other training seeds and held-out queries of one training set, as games that any process can build from the lens alone. Float32."""

import pickle

import numpy as np
import pytest
from answered_training_sets import UNSEEN, Trained

from raysp.actions.retrainings import own_seeds
from raysp.datasets.held_out import with_seed
from raysp.errors import UserError
from raysp.lenses import build_game
from raysp.specs.held_out import RetrainingLens


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("held_out"))


def retraining(lens, seed, **options):
    """The game of a lens that has travelled to another process."""
    return build_game(pickle.loads(pickle.dumps(RetrainingLens.of(lens, seed, **options))))


def test_a_retraining_trains_once_with_its_own_seed_on_the_components_of_the_run(trained):
    lens = trained.lens(queries=None, query_count=3, seeds=2, seeding="own")
    game, seed = build_game(lens), own_seeds(lens, 1)[0]
    once = retraining(lens, seed)
    assert seed == lens.training_seed + 2
    assert once.info.fingerprint == with_seed(game.info, seed).fingerprint != game.info.fingerprint
    assert (once.components, once.info.queries) == (game.components, game.info.queries)
    masks = np.random.default_rng(0).random((3, game.n)) < 0.7
    np.testing.assert_allclose(once.measure(masks).outputs, game.outputs_of(masks, seed), atol=1e-5)


def test_games_that_differ_in_their_seed_share_what_is_prepared_for_all_trainings(trained):
    lens = trained.lens()
    game, first, second = build_game(lens), retraining(lens, 1), retraining(lens, 2)
    assert first.trainer is second.trainer is game.trainer
    assert retraining(lens.model_copy(update={"epochs": 1}), 1).trainer is not game.trainer


def test_held_out_queries_are_asked_of_the_same_trainings_with_the_runs_kind_of_value(trained):
    game = retraining(trained.lens(), 5, heldout=trained.unseen, value="loss")
    assert (game.value, len(game.info.queries)) == ("loss", len(UNSEEN))
    assert game.components == build_game(trained.lens()).components
    with pytest.raises(UserError, match=r"^heldout: .* has 0 queries that the run did not see"):
        retraining(trained.lens(), 5, heldout=trained.lens().queries)
