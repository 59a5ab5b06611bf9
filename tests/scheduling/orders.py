"""A clock that stands still until it is told, games with known values, and orders of them."""

import numpy as np

from raysp.game import Measurement
from raysp.masks import pack, unpack
from raysp.scheduling import Order


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def order_of(run, number, masks, game="game", **options):
    masks = np.asarray(masks, dtype=np.bool_)
    return Order(run, number, game, pack(masks), masks.shape[1], **options)


def masks_of(count, n=20, seed=0):
    """Distinct masks."""
    rng = np.random.default_rng(seed)
    return np.unique(rng.random((4 * count + 8, n)) < 0.5, axis=0)[rng.permutation(count)]


def value(game, packed):
    """The value of each packed mask in a game."""
    return np.array([float(hash((game, row.tobytes())) % 10_007) for row in packed])


def measured(lease, seconds=0.1, tokens_each=3):
    """The answer to a lease: values, outputs for two queries, slopes if it asks for them, and tokens for each mask."""
    values = value(lease.fingerprint, lease.packed)
    slopes = np.tile(values.astype(np.float32)[:, None, None], (1, 2, 3)) if lease.slopes else None
    return Measurement(values, tokens_each * len(values), seconds, np.stack([values, -values], axis=1), slopes=slopes)


def drain(broker, workers=("w",), seconds=0.1):
    """Lease and finish until nothing is left; all deliveries."""
    told = []
    while leases := [lease for worker in workers if (lease := broker.lease(worker))]:
        for lease in leases:
            told += broker.finish(lease.number, measured(lease, seconds))
    return told


def rows_told(deliveries, run=None):
    """The rows delivered, as `(run, order, row)`, in order."""
    return [(each.run_id, each.order, int(row)) for each in deliveries for row in each.rows if run in {None, each.run_id}]


def masks_in(lease, n):
    """The masks of a lease as tuples."""
    return [tuple(mask) for mask in unpack(lease.packed, n).tolist()]
