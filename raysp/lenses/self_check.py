"""What a way of scoring is checked on when a game is built: pieces of a prompt, in every way that masks change it.

A check on whole contexts would cost as much as several evaluations. How masks share beginnings, hide tokens and put vectors in their place shows on a piece;
whether the length of the prompt matters, as in an attention window, is checked on the first batch that is measured (`ResidentModel.score_checked`).
"""

from collections.abc import Sequence

import numpy as np

from raysp.lenses.contexts import Context

#: Tokens of a piece.
PIECE = 128
#: The longest step between the positions of tokens that stand side by side in a piece.
GAP = 4


def pieces(contexts: Sequence[Context]) -> list[Context]:
    """Contexts of at most `PIECE` tokens: where one is longer, a piece of each, around where they first differ."""
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
    """Some tokens of a context, at positions that count from 0 and skip no more than `GAP`."""
    ids, positions, _ = context
    start = min(start, len(ids) - 1)
    ids, steps = ids[start : start + PIECE], np.diff(positions[start : start + PIECE])
    # Scoring a row alone takes a column for each position that it skips.
    positions = np.concatenate([[0], np.cumsum(np.minimum(steps, GAP))]).astype(np.int64)
    return ids, positions, int(positions[-1]) + 1
