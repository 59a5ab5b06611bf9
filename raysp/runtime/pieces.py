"""Batches in pieces: what is still to be measured, what to do with what was lost, and which masks to give up.

Pure bookkeeping, without Ray. A batch that is lost repeatedly is cut in halves, down to single masks, so that one mask that crashes every evaluator
is found and named while all others are measured.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.errors import EvaluationError
from raysp.game import GameInfo, labels
from raysp.masks import Masks

#: A whole batch that is lost this often is cut in halves. Its parts are cut at their first loss: by then the batch is the likely cause.
LOSSES_OF_A_BATCH = 2
#: A single mask that is lost this often is given up.
LOSSES_OF_A_MASK = 4
#: Components named in an error; a mask may remove thousands.
NAMED = 12
#: What to do when evaluators keep dying.
ADVICE = "what was measured is stored; their logs on the Ray dashboard tell why (most often memory: try a smaller model, bfloat16, or fewer evaluators)"


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `start` to `stop` of batch number `batch`."""

    batch: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows, to index the batch with."""
        return slice(self.start, self.stop)

    def halves(self) -> tuple["Piece", "Piece"]:
        """Two pieces that together are this one."""
        middle = (self.start + self.stop) // 2
        return Piece(self.batch, self.start, middle), Piece(self.batch, middle, self.stop)


class Pieces:
    """The pieces of batches with these numbers of masks: which wait, which are still wanted, and which were given up."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.waiting = deque(Piece(batch, 0, size) for batch, size in enumerate(sizes))
        self.given_up: list[Piece] = []
        self._wanted = set(self.waiting)
        self._losses: Counter[Piece] = Counter()

    @property
    def unfinished(self) -> bool:
        """Whether anything is still wanted."""
        return bool(self._wanted)

    def wants(self, piece: Piece) -> bool:
        """Whether a piece is neither finished nor replaced by its halves nor given up."""
        return piece in self._wanted

    def next(self) -> Piece | None:
        """The next piece to send, or None if none waits."""
        while self.waiting:
            if self.wants(piece := self.waiting.popleft()):
                return piece
        return None

    def finish(self, piece: Piece) -> bool:
        """Take a piece as measured; False if it was not wanted any more."""
        wanted = self.wants(piece)
        self._wanted.discard(piece)
        return wanted

    def send_again(self, piece: Piece) -> None:
        """Put a piece that was lost through no fault of its own at the front of those that wait."""
        if self.wants(piece):
            self.waiting.appendleft(piece)

    def lose(self, piece: Piece) -> None:
        """Record that an evaluator died while it measured this piece: send it again, cut it in halves, or give it up."""
        if not self.wants(piece):
            return
        self._losses[piece] += 1
        size = piece.stop - piece.start
        allowed = LOSSES_OF_A_MASK if size == 1 else LOSSES_OF_A_BATCH if size == self._sizes[piece.batch] else 1
        if self._losses[piece] < allowed:
            self.waiting.appendleft(piece)
            return
        self._wanted.discard(piece)
        if size == 1:
            self.given_up.append(piece)
            return
        halves = piece.halves()
        self._wanted.update(halves)
        self.waiting.extendleft(reversed(halves))

    def check(self, batches: Sequence[Masks], info: GameInfo, last: str) -> None:
        """EvaluationError that names a mask if any was given up; `last` is what the latest death looked like."""
        if not self.given_up:
            return
        removed = np.flatnonzero(~batches[self.given_up[0].batch][self.given_up[0].start]).tolist()
        names = labels(info.components, removed[:NAMED]) + (" …" if len(removed) > NAMED else "")
        others = f", and of {len(self.given_up) - 1} other masks" if len(self.given_up) > 1 else ""
        raise EvaluationError(
            f"evaluators died {LOSSES_OF_A_MASK} times of the mask without {len(removed)} of {info.n} components ({names}){others}, last with {last}; {ADVICE}"
        )
