"""The inputs on which a scoring method is checked when a game is built: pieces of a prompt, in every way that masks change it.

A check on whole contexts would cost as much as several evaluations. Pieces show how masks share prefixes, hide tokens and replace them by vectors;
whether the length of the prompt matters, as in an attention window, is checked on the first batch that is measured (`ResidentModel.score_checked`).
"""

from collections.abc import Sequence

import numpy as np

from raysp.lenses.contexts import Context

#: The number of tokens of a piece.
PIECE = 128
#: The largest difference between the positions of adjacent tokens in a piece.
GAP = 4


def pieces(contexts: Sequence[Context]) -> list[Context]:
    """Contexts of at most `PIECE` tokens: if one is longer, a piece of each, around the place where they first differ."""
    if max(len(ids) for ids, _, _ in contexts) <= PIECE:
        return list(contexts)
    start = max(_shared(contexts) - PIECE // 2, 0)
    return [_piece(context, start) for context in contexts]


def _shared(contexts: Sequence[Context]) -> int:
    """The number of tokens with which all contexts begin."""
    shortest = min(len(ids) for ids, _, _ in contexts)
    (first, places, _), *others = contexts
    same = np.ones(shortest, np.bool_)
    for ids, positions, _ in others:
        same &= (ids[:shortest] == first[:shortest]) & (positions[:shortest] == places[:shortest])
    return int(np.append(same, False).argmin())


def _piece(context: Context, start: int) -> Context:
    """Some tokens of a context, at positions that start at 0 with steps of at most `GAP`."""
    ids, positions, _ = context
    start = min(start, len(ids) - 1)
    ids, steps = ids[start : start + PIECE], np.diff(positions[start : start + PIECE])
    # Scoring a row alone takes a column for each position that it skips.
    positions = np.concatenate([[0], np.cumsum(np.minimum(steps, GAP))]).astype(np.int64)
    return ids, positions, int(positions[-1]) + 1
