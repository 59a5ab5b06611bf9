"""What becomes of batches whose evaluator died: sent again, cut in halves, or given up with a mask's name."""

import numpy as np
import pytest

import raysp
from raysp.game import Component, GameInfo
from raysp.runtime.pieces import LOSSES_OF_A_BATCH, LOSSES_OF_A_MASK, Piece, Pieces


def work(pieces, fatal):
    """Measure everything; whoever takes the mask `fatal` (batch, row) dies. The pieces that were measured, and the number of deaths."""
    measured, deaths = [], 0
    while pieces.unfinished:
        piece = pieces.next()
        if piece.batch == fatal[0] and piece.start <= fatal[1] < piece.stop:
            pieces.lose(piece)
            deaths += 1
        else:
            assert pieces.finish(piece)
            measured.append(piece)
    return measured, deaths


@pytest.mark.parametrize("row", [0, 5, 63])
def test_a_mask_that_kills_is_found_by_halves_and_all_others_are_measured(row):
    pieces = Pieces([64, 64, 1])
    measured, deaths = work(pieces, (1, row))
    rows = sorted((piece.batch, i) for piece in measured for i in range(piece.start, piece.stop))
    assert rows == sorted((batch, i) for batch, size in enumerate([64, 64, 1]) for i in range(size) if (batch, i) != (1, row))
    assert pieces.given_up == [Piece(1, row, row + 1)]
    assert deaths == LOSSES_OF_A_BATCH + 5 + LOSSES_OF_A_MASK


def test_a_batch_lost_once_is_sent_again_whole_and_first():
    pieces = Pieces([4, 4])
    first = pieces.next()
    pieces.lose(first)
    assert pieces.next() == first


def test_a_piece_without_blame_may_be_lost_any_number_of_times():
    pieces = Pieces([4])
    for _ in range(100):
        piece = pieces.next()
        pieces.send_again(piece)
    assert pieces.next() == Piece(0, 0, 4)
    assert pieces.given_up == []


def test_a_copy_that_returns_late_counts_once():
    pieces = Pieces([4])
    piece = pieces.next()
    assert pieces.finish(piece)
    assert not pieces.finish(piece)
    pieces.lose(piece)
    pieces.send_again(piece)
    assert pieces.next() is None
    assert not pieces.unfinished


def test_what_was_cut_is_not_measured_whole():
    pieces = Pieces([2])
    whole = pieces.next()
    for _ in range(LOSSES_OF_A_BATCH):
        pieces.lose(whole)
    assert not pieces.finish(whole)
    assert [pieces.next(), pieces.next(), pieces.next()] == [Piece(0, 0, 1), Piece(0, 1, 2), None]


def test_the_error_names_the_components_that_the_mask_removes():
    info = GameInfo("f", tuple(Component(i, f"word {i}", "word") for i in range(5)), {})
    masks = np.array([[True] * 5, [True, False, True, False, True]])
    pieces = Pieces([2])
    work(pieces, (0, 1))
    with pytest.raises(
        raysp.EvaluationError, match=r"^evaluators died 4 times of the mask without 2 of 5 components \(word 1 × word 3\), last with a signal; "
    ):
        pieces.check([masks], info, "a signal")
