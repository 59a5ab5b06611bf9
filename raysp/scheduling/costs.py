"""How long a batch of a game takes: seconds as a line in the number of masks, learned from the answers."""

#: Weight of the newest batch in the moving averages.
RECENT = 0.1
#: A batch counts with at most this many times its estimate, so that one slow worker does not change what is expected of all others.
OUTLIER = 4.0
#: A mask costs at least this share of what it would cost if batches had no fixed part.
LEAST_SLOPE = 0.01
#: Masks of the first batches of a game of which nothing is known, and the seconds they are assumed to take.
PROBE_MASKS = 16
PROBE_SECONDS = 1.0
#: A batch may exceed the limit by this factor before it is divided; two batches of half the size would be no better.
TOLERANCE = 1.5


class Cost:
    """Seconds that a batch of one game takes the average worker: a fixed part (a stack of trainings takes as long with one as with many) and a part for each mask."""

    __slots__ = ("_count", "_fixed_masks", "_masks", "_prior", "_seconds", "_slope", "_spread")

    def __init__(self) -> None:
        self._count = 0
        self._masks = self._seconds = self._slope = self._spread = 0.0
        self._fixed_masks = 0.0  # the fixed part, in masks of the same cost
        self._prior: float | None = None

    @property
    def known(self) -> bool:
        """Whether a batch of the game has been measured or its cost was estimated by the run."""
        return self._count > 0 or self._prior is not None

    @property
    def measured(self) -> bool:
        """Whether a batch of the game has been measured."""
        return self._count > 0

    @property
    def settled(self) -> bool:
        """Whether enough batches have been measured to tell a slow worker by one more."""
        return self._count > 2

    @property
    def each(self) -> float:
        """Seconds that one more mask takes."""
        if self._count:
            return self._seconds / (self._masks + self._fixed_masks)
        return PROBE_SECONDS / PROBE_MASKS if self._prior is None else self._prior

    def expect(self, seconds: float | None) -> None:
        """Take a run's estimate for one mask, which holds until a batch is measured."""
        if seconds is not None and 0 < seconds < float("inf"):
            self._prior = seconds

    def observe(self, masks: int, seconds: float) -> None:
        """Learn from a batch that took this long. Figures that are not positive and finite are ignored."""
        if not 0 < seconds < float("inf"):
            return
        if self.settled:
            seconds = min(seconds, OUTLIER * self.seconds(masks))
        self._count += 1
        weight = max(1 / self._count, RECENT)
        self._masks += weight * (masks - self._masks)
        self._seconds += weight * (seconds - self._seconds)
        self._divide()

    def compare(self, more: int, longer: float) -> None:
        """Learn from two batches of the same worker, of which one had `more` masks and took `longer`: this tells the fixed part from that of each mask."""
        self._spread = (1 - RECENT) * self._spread + more * more
        self._slope = (1 - RECENT) * self._slope + more * longer
        self._divide()

    def _divide(self) -> None:
        """Divide the seconds of a batch into those of its masks and a fixed part."""
        if self._count and self._spread:
            each = self._seconds / self._masks
            each = min(max(self._slope / self._spread, LEAST_SLOPE * each), each)
            self._fixed_masks = self._seconds / each - self._masks

    def seconds(self, masks: int) -> float:
        """The seconds that a batch of this many masks is expected to take."""
        return self.each * (masks + (self._fixed_masks if self._count else 0.0))

    def share(self, masks: int, limit: float) -> int:
        """How many of these masks to send together, so that they take about `limit` seconds or less, in equal parts.

        A batch whose fixed cost exceeds the limit is made large enough for its masks to cost as much as that. If all batches so far had
        the same size, which tells nothing of the fixed cost, another one of that size is not sent, but one twice as large.
        """
        if not self.known:
            return min(masks, max(int(PROBE_MASKS * limit / PROBE_SECONDS), 1))
        if self.seconds(masks) <= TOLERANCE * limit:
            return masks
        fixed = self._fixed_masks if self._count else 0.0
        most = int(max(limit / self.each - fixed, fixed, 1.0))
        if not self._spread and most == round(self._masks):
            most *= 2
        if most >= masks:
            return masks
        return -(-masks // -(-masks // most))
