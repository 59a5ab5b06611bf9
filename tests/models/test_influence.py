"""Influence functions on problems whose leave-one-out effects are known exactly: ridge regression, solved again without each example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models import influence as module
from raysp.models.influence import Gathered, Projection, by_component, gather, gradient_dot, influence, pair_deviations, tracin


def single(rows):
    return np.asarray(rows, np.float32)


def gathered(examples, queries, ends=None):
    return Gathered(single(examples), single(queries), tuple(ends or (examples.shape[1],)))


class Ridge:
    """Targets y = X θ + noise, fitted with loss `sum (y - xθ)² / 2 + ridge |θ|² / 2`; queries are linear in θ. All solved in closed form."""

    def __init__(self, examples=40, parameters=7, queries=3, ridge=2.0, seed=0):
        rng = np.random.default_rng(seed)
        # Numbers that float32 holds exactly, so that only the method can err.
        self.x = single(rng.normal(size=(examples, parameters))).astype(np.float64)
        self.y = self.x @ rng.normal(size=parameters) + rng.normal(size=examples)
        self.ask = single(rng.normal(size=(queries, parameters))).astype(np.float64)
        self.ridge = ridge
        self.hessian = self.x.T @ self.x + ridge * np.eye(parameters)
        self.theta = self.fit(np.ones(examples, bool))
        self.residual = self.y - self.x @ self.theta

    def fit(self, kept):
        x, y = self.x[kept], self.y[kept]
        return np.linalg.solve(x.T @ x + self.ridge * np.eye(x.shape[1]), x.T @ y)

    def without(self, *removed):
        kept = ~np.isin(np.arange(len(self.x)), removed)
        return self.ask @ (self.theta - self.fit(kept))

    @property
    def gradients(self):
        """Of the losses `(y - xθ)² / 2`."""
        return -self.residual[:, None] * self.x

    @property
    def damping(self):
        """What makes λ the ridge."""
        return self.ridge * min(self.x.shape) / np.trace(self.x.T @ self.x)


@pytest.mark.parametrize("shape", [(40, 7), (12, 30)])
def test_with_the_full_hessian_influence_is_the_infinitesimal_effect_and_with_the_leverage_exactly_leave_one_out(shape):
    problem = Ridge(*shape)
    found = influence(gathered(problem.gradients, problem.ask), problem.damping, curvature=gathered(problem.x, problem.ask))
    inverse = np.linalg.inv(problem.hessian)
    np.testing.assert_allclose(found, problem.ask @ inverse @ -problem.gradients.T, rtol=1e-5, atol=1e-7)
    leverage = np.einsum("ij,jk,ik->i", problem.x, inverse, problem.x)
    exact = np.stack([problem.without(i) for i in range(len(problem.x))], axis=1)
    np.testing.assert_allclose(found / (1 - leverage), exact, rtol=1e-4, atol=1e-6)


def test_to_first_order_influence_is_leave_one_out_the_better_the_more_examples_there_are():
    errors = []
    for examples in (50, 400):
        problem = Ridge(examples)
        found = influence(gathered(problem.gradients, problem.ask), problem.damping, curvature=gathered(problem.x, problem.ask))
        exact = np.stack([problem.without(i) for i in range(examples)], axis=1)
        errors.append(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.1


def test_the_empirical_fisher_matrix_ranks_examples_like_leave_one_out():
    problem = Ridge(400)
    exact = np.stack([problem.without(i) for i in range(400)], axis=1)
    found = influence(gathered(problem.gradients, problem.ask), 0.1)
    for one, other in zip(found, exact, strict=True):
        assert np.corrcoef(np.argsort(np.argsort(one)), np.argsort(np.argsort(other)))[0, 1] > 0.9


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_the_space_of_examples_and_that_of_parameters_give_the_same(examples, parameters, damping, seed):
    rng = np.random.default_rng(seed)
    rows, other, ask = (
        single(rng.normal(size=(examples, parameters))),
        single(rng.normal(size=(examples, parameters))),
        single(rng.normal(size=(3, parameters))),
    )
    for curvature in (rows, other):
        square = curvature.T.astype(np.float64) @ curvature
        strength = damping * np.trace(square) / min(examples, parameters)
        direct = -ask @ np.linalg.solve(square + strength * np.eye(parameters), rows.T.astype(np.float64))
        given_ = None if curvature is rows else gathered(curvature, ask)
        np.testing.assert_allclose(influence(gathered(rows, ask), damping, given_), direct, rtol=1e-6, atol=1e-9)


def test_blocks_are_inverted_one_by_one_each_with_its_own_damping():
    rng = np.random.default_rng(1)
    rows, ask = rng.normal(size=(9, 20)), rng.normal(size=(2, 20))
    rows[:, 5:] *= 100
    parts = [influence(gathered(rows[:, some], ask[:, some]), 0.3) for some in (slice(0, 5), slice(5, 20))]
    np.testing.assert_allclose(influence(gathered(rows, ask, (5, 20)), 0.3), sum(parts))


def test_a_block_that_no_example_moves_adds_nothing():
    rows, ask = np.array([[1.0, 0.0], [2.0, 0.0]]), np.ones((1, 2))
    np.testing.assert_allclose(influence(gathered(rows, ask, (1, 2))), influence(gathered(rows[:, :1], ask[:, :1])))


def test_a_projection_keeps_inner_products_the_better_the_wider_it_is_and_influence_with_them():
    problem = Ridge(60, 3000)
    exact = influence(gathered(problem.gradients, problem.ask), 1.0)
    errors, dots = [], []
    for width in (60, 240, 2400):
        projected = gather([single(problem.gradients)], 60, single(problem.ask), room=60 * width)
        assert projected.projected
        assert projected.examples.shape == (60, width)
        dots.append(np.abs(projected.queries @ projected.examples.T - problem.ask @ problem.gradients.T).std())
        errors.append(np.abs(influence(projected, 1.0) - exact).std() / np.abs(exact).std())
    assert dots[0] > 1.5 * dots[1] > 3 * dots[2]
    assert errors[0] > errors[1] > errors[2]


def test_gradients_that_come_in_parts_are_gathered_as_if_together_whether_projected_or_not():
    rng = np.random.default_rng(2)
    rows, ask = single(rng.normal(size=(50, 5000))), single(rng.normal(size=(2, 5000)))
    for room in (1 << 28, 50 * 300):
        whole = gather([rows], 50, ask, sizes=[1000, 4000], room=room)
        parts = gather((rows[start : start + 7] for start in range(0, 50, 7)), 50, ask, sizes=[1000, 4000], room=room)
        np.testing.assert_allclose(parts.examples, whole.examples, atol=1e-4)
        assert parts.blocks == whole.blocks
        assert whole.projected == (room < rows.size)
    assert whole.blocks == (60, 300)
    other = gather([rows], 50, ask, sizes=[1000, 4000], room=50 * 300, seed=1)
    assert not np.allclose(other.examples, whole.examples, atol=0.1)


def test_a_hundred_thousand_examples_are_never_held_whole(monkeypatch):
    monkeypatch.setattr(module, "WIDEST", 64)

    def chunks():
        rng = np.random.default_rng(3)
        for _ in range(100):
            yield single(rng.normal(size=(1000, 300)))

    found = gather(chunks(), 100_000, single(np.ones((1, 300))), room=100_000 * 100)
    assert found.examples.shape == (100_000, 64)
    assert influence(found).shape == (1, 100_000)


def test_rows_of_a_projection_are_random_signs():
    signs = Projection(3000, 16, 0)(np.eye(3000, dtype=np.float32)) * 4
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.02
    assert np.abs(signs.T @ signs / 3000 - np.eye(16)).max() < 0.1


def test_a_helpful_example_has_a_positive_effect_and_a_harmful_one_a_negative_one():
    # The output is the log-probability of the class that example 0 teaches, and that example 1, its like, is labelled against.
    ask = np.array([[1.0, 0.0, 0.0]])
    losses = np.array([[-1.0, 0.1, 0.0], [1.0, 0.0, 0.1], [0.0, -1.0, 0.5]])
    for effects in (influence(gathered(losses, ask)), gradient_dot([single(losses)], single(ask)), tracin([(0.1, [single(losses)], single(ask))])):
        assert effects[0, 0] > 0
        assert effects[0, 1] < 0
        assert abs(effects[0, 2]) < min(effects[0, 0], -effects[0, 1])


def test_tracin_on_a_path_of_small_steps_tells_what_each_example_moved_the_query():
    problem = Ridge(30)
    theta, rate, moved = np.zeros(7), 1e-4, np.zeros((3, 30))
    checkpoints = []
    for _ in range(200):
        gradients = -(problem.y - problem.x @ theta)[:, None] * problem.x
        checkpoints.append((rate, [single(gradients[:11]), single(gradients[11:])], single(problem.ask)))
        moved -= rate * problem.ask @ gradients.T
        theta -= rate * gradients.sum(axis=0)
    effects = tracin(checkpoints)
    np.testing.assert_allclose(effects, moved, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(effects.sum(axis=1), problem.ask @ theta, rtol=1e-5)


def test_a_preconditioner_weighs_parameters():
    rng = np.random.default_rng(4)
    rows, ask, scale = single(rng.normal(size=(5, 6))), single(rng.normal(size=(2, 6))), rng.random(6)
    np.testing.assert_allclose(gradient_dot([rows], ask, scale), -(ask * scale) @ rows.T, rtol=1e-6)


def test_a_components_effect_is_the_sum_of_its_examples():
    effects = np.arange(10.0).reshape(2, 5)
    np.testing.assert_array_equal(by_component(effects, np.array([2, 0, 2, 2, 0]), 4), [[5, 0, 5, 0], [15, 0, 20, 0]])


@pytest.mark.parametrize("shape", [(40, 7), (12, 30)])
def test_pairs_deviate_as_the_curvature_that_goes_with_them_says(shape):
    rng = np.random.default_rng(5)
    rows, ask = single(rng.normal(size=shape)), single(rng.normal(size=(2, shape[1])))
    square = rows.T.astype(np.float64) @ rows
    hessian = square + 20 * np.trace(square) / min(shape) * np.eye(shape[1])
    weights = np.array([0.5, 0.5])

    def effect(*removed):
        some = rows[list(removed)].astype(np.float64)
        return -(weights @ ask) @ np.linalg.solve(hessian - some.T @ some, some.sum(axis=0))

    singles, pairs = pair_deviations(gathered(rows, ask), weights, np.arange(shape[0]), shape[0], 20)
    scale = np.abs(singles).max()
    for i, j in [(0, 1), (3, 7), (10, 2)]:
        assert abs(singles[i] - effect(i)) < 0.02 * scale
        assert abs(pairs[i, j] - (effect(i, j) - effect(i) - effect(j))) < 0.02 * scale
    grouped, deviations = pair_deviations(gathered(rows, ask), weights, np.arange(shape[0]) // 2, shape[0] // 2, 20)
    assert abs(grouped[1] - effect(2, 3)) < 0.03 * scale
    assert abs(deviations[0, 1] - (effect(0, 1, 2, 3) - effect(0, 1) - effect(2, 3))) < 0.05 * scale


def test_near_duplicates_that_help_deviate_as_redundant():
    rng = np.random.default_rng(6)
    rows = single(rng.normal(size=(20, 50)))
    rows[1] = rows[0] + single(rng.normal(size=50)) * 0.05
    ask = -rows[:1]
    singles, pairs = pair_deviations(gathered(rows, ask), np.ones(1), np.arange(20), 20, 1.0)
    assert singles[0] > 0
    assert np.unravel_index(pairs.argmax(), pairs.shape) in {(0, 1), (1, 0)}
    assert pairs[0, 1] > 5 * np.sort(np.triu(pairs).ravel())[-2]
    np.testing.assert_array_equal(np.diag(pairs), 0)


def test_what_does_not_fit_together_is_refused():
    rows, ask = single(np.ones((4, 6))), single(np.ones((1, 6)))
    with pytest.raises(ValueError, match="blocks of 5 parameters for gradients of 6"):
        gather([rows], 4, ask, sizes=[2, 3])
    with pytest.raises(ValueError, match="gradients of 4 examples; expected 5"):
        gather([rows], 5, ask)
    with pytest.raises(ValueError, match="expected 6 columns"):
        gather([rows[:, :5]], 4, ask)
    with pytest.raises(ValueError, match="behind 0 of 3 examples"):
        gather([rows], 3, ask)
    with pytest.raises(ValueError, match="no checkpoints"):
        tracin([])
