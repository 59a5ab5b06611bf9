"""LASSO paths: those of many rows, whose design does not fit into memory, are those of the whole design."""

import numpy as np
import pytest

from raysp.spectral import regression
from raysp.spectral.regression import Exam, lasso_path, penalties
from raysp.spectral.sets import singletons

N, ROWS = 7, 60


@pytest.mark.parametrize("keep_probability", [0.5, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_path_fitted_strip_by_strip_is_that_of_the_whole_design_in_float64(keep_probability, weighted, monkeypatch):
    rng = np.random.default_rng(0)
    masks = rng.random((ROWS, N)) < keep_probability
    values = masks @ rng.normal(size=N) + 2.0 * masks[:, 0] * masks[:, 1]
    weights = rng.uniform(1.0, 4.0, ROWS) if weighted else None
    exam = Exam(masks[:10], values[:10])

    def path():
        return lasso_path(singletons(N), masks, values, penalties(values), exam, keep_probability=keep_probability, weights=weights)

    whole = path()
    monkeypatch.setattr(regression, "CHUNK", 9 * (N + 1))  # nine rows at a time, and six at the end
    strips = path()
    assert np.abs(whole.coefficients[1:]).max() > 0.5
    np.testing.assert_allclose(strips.coefficients, whole.coefficients, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(strips.predict(masks), whole.predict(masks), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("most", [0, regression.MOST_PRODUCTS])
def test_the_smallest_penalty_is_close_to_least_squares_with_and_without_precomputed_products_in_float64(most, monkeypatch):
    monkeypatch.setattr(regression, "MOST_PRODUCTS", most)
    rng = np.random.default_rng(1)
    masks = rng.random((ROWS, N)) < 0.5
    values = masks @ rng.normal(size=N) + 0.1 * rng.normal(size=ROWS)
    weights = rng.uniform(1.0, 4.0, ROWS)
    design = np.column_stack([np.ones(ROWS), 1.0 - 2.0 * masks])
    root = np.sqrt(weights)
    exact, *_ = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)
    found = lasso_path(singletons(N), masks, values, np.array([1e-2, 1e-7]), weights=weights).coefficients[:, -1]
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-3)
