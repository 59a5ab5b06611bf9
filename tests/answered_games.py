"""Games whose answer is known."""

import numpy as np

N = 12


def planted(masks):
    """3·x1 + x4·x7 synergy of 4, an OR of x2 and x9 worth 2, and a triple x0·x5·x11 worth 3."""
    x = np.asarray(masks, dtype=float)
    return 3 * x[:, 1] + 4 * x[:, 4] * x[:, 7] + 2 * np.maximum(x[:, 2], x[:, 9]) + 3 * x[:, 0] * x[:, 5] * x[:, 11]


def additive(masks):
    """Nothing but singles."""
    return np.asarray(masks, dtype=float) @ np.arange(1.0, N + 1)


def constant(masks):
    """Nothing at all."""
    return np.full(len(masks), 1.5)


def flawed(masks):
    """Not a number whenever components 3 and 5 are both removed."""
    masks = np.asarray(masks)
    return np.where(~masks[:, 3] & ~masks[:, 5], np.nan, 1.0 + masks.sum(axis=1))
