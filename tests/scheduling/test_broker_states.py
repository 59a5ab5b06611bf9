"""Whatever runs and workers do, and in whatever order: every mask is answered once to everybody who asked, and measured by one worker at a time."""

from collections import Counter

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from orders import Clock, measured, order_of, value

from raysp.masks import unpack
from raysp.scheduling import Broker, QuarantinedMaskError, WithdrawnError
from raysp.scheduling.quarantine import STRIKES

N = 3
GAMES = st.sampled_from(["one", "other"])
RUNS = st.sampled_from(["ann", "bob", "cy"])
WORKERS = st.sampled_from(["w1", "w2", "w3", "w4"])
MASKS = [tuple(bool(k >> i & 1) for i in range(N)) for k in range(1 << N)]


class Runs(RuleBasedStateMachine):
    """A broker beside books kept by brute force: who still wants which mask, and who holds it."""

    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.broker = Broker(self.clock)
        self.open = {}  # run: its limit of workers
        self.wanted = {}  # (run, order, row): (game, mask) that has not been answered
        self.held = {}  # number of an unanswered lease: the lease and, of its masks, those that somebody has wanted ever since
        self.live = set()  # numbers of the leases that are neither answered nor taken back
        self.orphans = set()  # numbers of the leases whose run was closed
        self.numbers = 0
        self.lone_failures = Counter()  # (game, mask): failures while alone in a lease

    def leases_of(self, **fields):
        """The leases that workers have, by worker or run."""
        return [self.held[number][0] for number in sorted(self.live) if all(getattr(self.held[number][0], key) == wanted for key, wanted in fields.items())]

    def answered(self, lease, deliveries):
        """Check the answer to a lease: whoever has wanted one of its masks ever since is told."""
        self.live.discard(lease.number)
        promised = {(lease.fingerprint, mask) for mask in self.held.pop(lease.number)[1]}
        self.take(deliveries, lease)
        assert not promised & set(self.wanted.values())

    def take(self, deliveries, lease=None):
        """Check deliveries against the books, and cross off what they answer."""
        paid = Counter()
        for each in deliveries:
            assert each.run_id in self.open
            assert (each.measurement is None) != (each.error is None)
            for place, row in enumerate(each.rows):
                game, mask = self.wanted.pop((each.run_id, each.order, int(row)))  # fails if it was told before, or never asked
                if each.measurement is not None:
                    packed = np.packbits([mask], axis=1)
                    assert each.measurement.values[place] == value(game, packed)[0]
                    assert each.measurement.outputs[place].tolist() == [value(game, packed)[0], -value(game, packed)[0]]
                    paid[game, mask] += each.paid
                elif isinstance(each.error, QuarantinedMaskError):
                    assert self.lone_failures[game, mask] >= STRIKES
                    assert each.error.removed == tuple(np.flatnonzero(~np.array(mask)))
        assert all(count == 1 for count in paid.values())
        if paid:
            assert sum(each.measurement.tokens for each in deliveries) == 3 * len(lease.rows)
        self.forget()

    def forget(self):
        """Of the masks in leases, those that nobody wants any more do not count as measured for whoever asks next."""
        still = set(self.wanted.values())
        for lease, masks in self.held.values():
            masks &= {mask for game, mask in still if game == lease.fingerprint}

    @staticmethod
    def masks(lease):
        return [tuple(mask) for mask in unpack(lease.packed, N).tolist()]

    @rule(run=RUNS, priority=st.integers(0, 9), limit=st.sampled_from([None, 1, 2]))
    def open_run(self, run, priority, limit):
        self.broker.open(run, priority=priority, workers=limit)
        self.open[run] = limit

    @precondition(lambda self: self.open)
    @rule(data=st.data(), game=GAMES, masks=st.sets(st.sampled_from(MASKS), min_size=1), seconds=st.sampled_from([None, 0.1, 0.4]))
    def place(self, data, game, masks, seconds):
        run = data.draw(st.sampled_from(sorted(self.open)))
        has = {mask for (who, _, _), (its_game, mask) in self.wanted.items() if who == run and its_game == game}
        masks = sorted(masks - has)
        if not masks:
            return
        self.numbers += 1
        order = order_of(run, self.numbers, masks, game, seconds=seconds)
        self.wanted.update({(run, self.numbers, row): (game, mask) for row, mask in enumerate(masks)})
        told = self.broker.place(order)
        assert all(isinstance(each.error, QuarantinedMaskError) for each in told)
        self.take(told)
        if any(key[1] == self.numbers for key in self.wanted):
            assert self.broker.place(order) == [], "the number of an unfinished order is ignored"

    @rule(target=leases, worker=WORKERS)
    def lease(self, worker):
        lease = self.broker.lease(worker)
        if lease is None:
            return multiple()
        assert lease.worker == worker
        assert lease.expires > self.clock.now
        assert len(lease.rows) == len(lease.packed) > 0
        for row, mask in zip(lease.rows, self.masks(lease), strict=True):
            assert self.wanted[lease.run_id, lease.order, int(row)] == (lease.fingerprint, mask)
            assert not any(lease.fingerprint == other.fingerprint and mask in still for other, still in map(self.held.get, self.live)), "another worker has it"
        others = {other.worker for other in self.leases_of(run_id=lease.run_id) if other.number not in self.orphans}
        limit = self.open[lease.run_id]
        assert limit is None or worker in others or len(others) < limit
        self.held[lease.number] = lease, set(self.masks(lease))
        self.live.add(lease.number)
        assert len(self.leases_of(worker=worker)) <= 2
        return lease

    @rule(lease=consumes(leases), seconds=st.sampled_from([0.0, 0.05, 0.5, 3.0]))
    def finish(self, lease, seconds):
        self.answered(lease, self.broker.finish(lease.number, measured(lease, seconds)))
        assert self.broker.finish(lease.number, measured(lease, seconds)) == [], "a second answer is told nobody"

    @rule(lease=consumes(leases))
    def fail(self, lease):
        self.answered(lease, self.broker.fail(lease.number, RuntimeError("diverged")))

    @rule(worker=WORKERS, data=st.data())
    def lose(self, worker, data):
        held = self.leases_of(worker=worker)
        begun = data.draw(st.sampled_from([None, *[lease.number for lease in held]]))
        for lease in held:
            self.blame(lease, lease.number == begun)
        self.take(self.broker.lose(worker, begun=begun, reason="a signal"))

    @rule(seconds=st.sampled_from([1.0, 30.0, 120.0, 700.0]))
    def expire(self, seconds):
        self.clock.now += seconds
        late = {lease.worker for lease in self.leases_of() if lease.expires <= self.clock.now}
        taken_back = {worker: self.leases_of(worker=worker) for worker in late}
        expired = self.broker.expire()
        assert {lease.number for lease in expired.leases} == {lease.number for held in taken_back.values() for lease in held}
        for held in taken_back.values():
            for place, lease in enumerate(held):
                self.blame(lease, place == 0)
        self.take(expired.deliveries)

    def blame(self, lease, blamed):
        self.live.remove(lease.number)
        if blamed and len(lease.rows) == 1:
            self.lone_failures[lease.fingerprint, self.masks(lease)[0]] += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data):
        run = data.draw(st.sampled_from(sorted(self.open)))
        self.broker.close(run)
        del self.open[run]
        self.orphans |= {lease.number for lease in self.leases_of(run_id=run)}
        self.wanted = {key: mask for key, mask in self.wanted.items() if key[0] != run}
        self.forget()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def withdraw(self, data):
        """The run is told of what no worker has, and of nothing else."""
        run = data.draw(st.sampled_from(sorted(self.open)))
        held = {(lease.fingerprint, mask) for lease in self.leases_of() for mask in self.held[lease.number][1]}
        mine = {key for key, mask in self.wanted.items() if key[0] == run}
        told = self.broker.withdraw(run)
        withdrawn = {(each.run_id, each.order, int(row)) for each in told for row in each.rows}
        assert all(isinstance(each.error, WithdrawnError) for each in told)
        assert withdrawn <= mine
        assert {self.wanted[key] for key in mine - withdrawn} <= held
        assert self.broker.snapshot().queued[run] == self.broker.snapshot().shared[run] == 0
        self.take(told)

    @invariant()
    def the_snapshot_counts_what_is_wanted(self):
        state = self.broker.snapshot()
        counted = {run: state.queued[run] + state.in_flight[run] + state.shared[run] for run in state.queued}
        assert counted == {run: sum(key[0] == run for key in self.wanted) for run in self.open}
        assert state.leases == len(self.live)
        assert sum(state.in_flight.values()) == sum(len(self.held[number][1]) for number in self.live)

    def teardown(self):
        """Healthy workers finish the rest, whatever happened before, and nothing is remembered of runs that are closed."""
        for run in self.open:
            self.broker.open(run, workers=None)
        for lease in self.leases_of():
            self.answered(lease, self.broker.finish(lease.number, measured(lease)))
        while lease := self.broker.lease("fresh"):
            self.take(self.broker.finish(lease.number, measured(lease)), lease)
        assert not self.wanted
        for run in list(self.open):
            self.broker.close(run)
        assert not self.broker._flights
        assert not any(game.orders or game.by_run or game.duplicates for game in self.broker._games.values())
        assert not any(worker.flights for worker in self.broker._workers.values())


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
