"""How long a batch of a game takes: seconds as a line in the number of masks, learned from the answers."""

#: Weight of the newest batch in the moving averages.
RECENT = 0.1
#: A batch counts with at most this many times its estimate, so that one slow worker does not change what is expected of all others.
OUTLIER = 4.0
#: Batch sizes must vary by this share of their mean before the fixed cost of a batch is estimated from them.
VARIED = 0.1
#: Masks of the first batches of a game of which nothing is known, and the seconds they are assumed to take.
PROBE_MASKS = 16
PROBE_SECONDS = 1.0
#: A batch may exceed the limit by this factor before it is divided; two batches of half the size would be no better.
TOLERANCE = 1.5


class Cost:
    """Seconds of a batch of one game: a fixed part (a stack of trainings takes as long with one as with many) and a part for each mask."""

    __slots__ = ("_count", "_covariance", "_fixed_masks", "_masks", "_prior", "_seconds", "_variance")

    def __init__(self) -> None:
        self._count = 0
        self._masks = self._seconds = self._variance = self._covariance = 0.0
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
        if self._count > 2:
            seconds = min(seconds, OUTLIER * self.seconds(masks))
        self._count += 1
        weight = max(1 / self._count, RECENT)
        more, longer = masks - self._masks, seconds - self._seconds
        self._masks += weight * more
        self._seconds += weight * longer
        self._variance = (1 - weight) * (self._variance + weight * more * more)
        self._covariance = (1 - weight) * (self._covariance + weight * more * longer)
        if self._variance > (VARIED * self._masks) ** 2:
            each = min(max(self._covariance / self._variance, 0.01 * self._seconds / self._masks), self._seconds / self._masks)
            self._fixed_masks = self._seconds / each - self._masks

    def seconds(self, masks: int) -> float:
        """The seconds that a batch of this many masks is expected to take."""
        return self.each * (masks + (self._fixed_masks if self._count else 0.0))

    def share(self, masks: int, limit: float) -> int:
        """How many of these masks to send together, so that they take about `limit` seconds or less, in equal parts.

        A batch whose fixed cost exceeds the limit is made large enough for its masks to cost as much as that.
        """
        if not self.known:
            return min(masks, PROBE_MASKS)
        if self.seconds(masks) <= TOLERANCE * limit:
            return masks
        fixed = self._fixed_masks if self._count else 0.0
        most = max(limit / self.each - fixed, fixed, 1.0)
        if most >= masks:
            return masks
        return -(-masks // -(-masks // int(most)))
