"""A game whose slopes are known, and an explorer that asks for slopes in some of its rounds."""

import numpy as np

from raysp.explorers import ProxySPEX
from raysp.game import Component, Game, GameInfo, Measurement, fingerprint

N = 10
WEIGHTS = np.random.default_rng(5).normal(size=(N, N))


class Sloping(Game):
    """A quadratic game with the slopes of its value. `error` is added to values measured with slopes; `batch_masks` is small, so that rounds are several batches."""

    def __init__(self, error=0.0, *, broken=None, slopes=True):
        described = {"lens": "function", "name": "sloping", "n": N}
        components = tuple(Component(i, f"x{i}", "x") for i in range(N))
        self.info = GameInfo(fingerprint(described), components, described, batch_masks=16, slopes=slopes)
        self.error, self.broken = error, broken
        self.calls = []

    def measure(self, masks, *, slopes=False):
        self.check_slopes(slopes=slopes)
        self.calls.append((len(masks), slopes))
        values = self.value(masks) + (self.error if slopes else 0.0)
        found = self.slope(masks) if slopes else None
        if slopes and self.broken is not None:
            found = self.broken(found)
        return Measurement(values, 3 * len(masks), (2.5 if slopes else 1.0) * len(masks), slopes=found)

    @staticmethod
    def value(masks):
        x = np.asarray(masks, dtype=float)
        return np.einsum("mi,ij,mj->m", x, WEIGHTS, x)

    @staticmethod
    def slope(masks):
        x = np.asarray(masks, dtype=float)
        return (x @ (WEIGHTS + WEIGHTS.T)).astype(np.float32)[:, None]


class Curious(ProxySPEX):
    """Asks for masks in rounds of 24, the even ones with slopes if there are any, and keeps what it was told."""

    rounds = 4

    def __init__(self, **options):
        super().__init__(**options)
        self.price = None

    def with_slopes(self, price):
        self.price = price
        return self

    @property
    def asks_slopes(self):
        return self.price is not None and len(self._masks) % 2 == 0

    def _next(self):
        if len(self._masks) == self.rounds:
            return None
        numbers = 1 + np.random.default_rng(self.random_state).permutation(2**self.n - 2)  # each mask but the ends, once
        return (numbers[24 * len(self._masks) :][:24, None] >> np.arange(self.n)) % 2 == 1

    def certain_masks(self):
        return self.ask()

    def planned(self, n):
        return 24 * self.rounds


def told(explorers):
    """What the last of these explorers that was told anything was told: masks, outputs and slopes by round."""
    last = next(explorer for explorer in reversed(explorers) if explorer._masks)
    return last._masks, last._outputs, last._slopes


def starting(started):
    """What a run uses in place of `explorer_of`, so that it explores as above whatever its spec says; the explorers that it starts are added to a list."""

    def explorer(options):
        found = Curious(**options.model_dump(exclude={"kind"}, exclude_unset=True))
        start = found.start

        def begin(*arguments, **named):
            started.append(start(*arguments, **named))
            return started[-1]

        found.start = begin
        return found

    return explorer
