"""Duplicates, leases, deaths and quarantine, one rule at a time; `test_broker_states.py` puts them together."""

import pickle

import numpy as np
import pytest
from orders import Clock, drain, masks_of, measured, order_of, rows_told

from raysp.errors import EvaluationError
from raysp.game import Component, Measurement
from raysp.scheduling import Broker, Order, QuarantinedMaskError, WithdrawnError
from raysp.scheduling.costs import Cost
from raysp.scheduling.quarantine import QUARANTINE_SECONDS, TOGETHER_SECONDS


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = Broker(clock)
    for run in ("ann", "bob", "cy"):
        broker.open(run)
    return broker


def all_rows(run, order, count):
    return [(run, order, row) for row in range(count)]


# ---- duplicates


def test_masks_that_two_runs_ask_for_are_measured_once_and_told_to_both(broker):
    masks = masks_of(48)
    broker.place(order_of("ann", 1, masks[:32]))
    broker.place(order_of("bob", 7, masks[16:]))
    told, leased = [], 0
    while lease := broker.lease("w"):
        leased += len(lease.rows)
        told += broker.finish(lease.number, measured(lease))
    assert leased == 48
    assert sorted(rows_told(told, "ann")) == all_rows("ann", 1, 32)
    assert sorted(rows_told(told, "bob")) == all_rows("bob", 7, 32)
    assert sum(len(each.rows) for each in told if not each.paid) == 16 == broker.snapshot().duplicates_saved
    assert sum(each.measurement.tokens for each in told) == 3 * 48
    assert all(each.measurement.tokens == 0 and each.measurement.seconds == 0 for each in told if not each.paid)


def test_the_same_mask_of_another_game_is_another_mask(broker):
    masks = masks_of(8)
    broker.place(order_of("ann", 1, masks, "game"))
    broker.place(order_of("bob", 1, masks, "other"))
    assert len(rows_told(drain(broker))) == 16
    assert broker.snapshot().duplicates_saved == 0


def test_when_the_paying_run_is_closed_in_mid_flight_the_answer_goes_to_those_who_wait_and_the_next_pays(broker):
    masks = masks_of(24)
    broker.place(order_of("ann", 1, masks))
    broker.place(order_of("bob", 1, masks))
    broker.place(order_of("cy", 1, masks))
    lease = broker.lease("w")
    assert (lease.run_id, len(lease.rows)) == ("ann", 16)
    broker.close("ann")
    told = broker.finish(lease.number, measured(lease))
    assert [(each.run_id, each.paid, len(each.rows)) for each in told] == [("bob", True, 16), ("cy", False, 16)]
    told += drain(broker)
    assert sorted(rows_told(told)) == all_rows("bob", 1, 24) + all_rows("cy", 1, 24)


def test_a_run_that_stops_is_told_what_workers_hold_and_gives_up_the_rest_but_not_what_others_wait_for(broker):
    masks = masks_of(24)
    broker.place(order_of("ann", 1, masks))
    broker.place(order_of("bob", 1, masks[12:20]))
    lease = broker.lease("w")
    assert (lease.run_id, len(lease.rows)) == ("ann", 16)
    (told,) = broker.withdraw("ann")
    assert (told.rows.tolist(), type(told.error)) == (list(range(16, 24)), WithdrawnError)
    answered = broker.finish(lease.number, measured(lease))
    assert [(each.run_id, each.paid, len(each.rows)) for each in answered] == [("ann", True, 16), ("bob", False, 4)]
    assert sorted(rows_told(drain(broker))) == [("bob", 1, row) for row in range(4, 8)]
    assert broker.withdraw("ann") == []


def test_an_order_is_known_by_its_number_until_it_is_answered(broker):
    order = order_of("ann", 1, masks_of(4))
    broker.place(order)
    assert broker.place(order) == []
    assert rows_told(drain(broker)) == all_rows("ann", 1, 4)
    broker.place(order)
    assert rows_told(drain(broker)) == all_rows("ann", 1, 4)


def test_a_run_that_is_not_open_cannot_order(broker):
    broker.close("ann")
    with pytest.raises(LookupError, match="run ann is not open"):
        broker.place(order_of("ann", 1, masks_of(4)))


@pytest.mark.parametrize("packed", [np.zeros((0, 1), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 1)), np.zeros(2, np.uint8)])
def test_an_order_holds_packed_masks_of_the_right_width(packed):
    with pytest.raises(ValueError, match=r"expected uint8 \(m, 1\) with m > 0"):
        Order("ann", 1, "game", packed, 8)


def test_a_game_that_raises_ends_all_runs_that_asked_and_no_others(broker):
    masks = masks_of(8)
    broker.place(order_of("ann", 1, masks))
    broker.place(order_of("bob", 1, masks[:4]))
    broker.place(order_of("cy", 1, masks, "other"))
    lease = next(lease for w in ("w1", "w2") if (lease := broker.lease(w)).fingerprint == "game")
    error = RuntimeError("loss was nan")
    assert [(each.run_id, len(each.rows), each.error) for each in broker.fail(lease.number, error)] == [("ann", 8, error), ("bob", 4, error)]


def test_too_few_values_are_an_error_of_the_game(broker):
    broker.place(order_of("ann", 1, masks_of(8)))
    lease = broker.lease("w")
    (told,) = broker.finish(lease.number, Measurement(np.zeros(3), 0, 1.0))
    assert str(told.error) == "the game returned 3 values for 8 masks"


# ---- leases


def test_a_lease_that_expires_goes_to_others_and_a_late_answer_counts_for_what_is_still_wanted(broker, clock):
    broker.place(order_of("ann", 1, masks_of(8)))
    late = broker.lease("slow")
    clock.now = late.expires - 0.001
    assert broker.expire().leases == ()
    clock.now = late.expires
    assert broker.expire().leases == (late,)
    assert broker.lease("slow") is None, "a worker that hangs is given nothing"
    half = broker.lease("w")
    told = broker.finish(half.number, measured(half))
    told += broker.finish(late.number, measured(late))
    assert sorted(rows_told(told)) == all_rows("ann", 1, 8)
    assert broker.lease("w") is None
    assert broker.finish(half.number, measured(half)) == []


def test_a_lease_can_be_extended_until_it_expires(broker, clock):
    broker.place(order_of("ann", 1, masks_of(8)))
    lease = broker.lease("w")
    clock.now = lease.expires - 1
    broker.extend(lease.number, 100)
    clock.now = lease.expires + 98
    assert broker.expire().leases == ()
    clock.now = lease.expires + 100
    assert broker.expire().leases == (lease,)


def test_the_oldest_lease_of_a_hanging_worker_is_held_responsible_and_its_second_one_goes_to_others_as_it_is(broker, clock):
    broker.place(order_of("ann", 1, masks_of(16), seconds=0.01))
    broker.place(order_of("ann", 2, masks_of(16, seed=1), seconds=0.01))
    first, second = broker.lease("w"), broker.lease("w")
    clock.now = first.expires
    assert set(broker.expire().leases) == {first, second}
    pieces = [broker.lease(worker) for worker in ("a", "b", "c")]
    assert sorted(len(piece.rows) for piece in pieces) == [8, 8, 16]
    assert next(piece.order for piece in pieces if len(piece.rows) == 16) == second.order


def test_a_second_lease_is_given_only_where_both_are_short(broker):
    for number, seconds in enumerate((0.02, 0.02, 0.02)):
        broker.place(order_of("ann", number, masks_of(20, seed=number), "short", seconds=seconds))
    assert [broker.lease("w") is not None for _ in range(3)] == [True, True, False]
    drain(broker)
    for number in range(2):
        broker.place(order_of("bob", number, masks_of(20, seed=number), "long", seconds=0.04))
    assert [broker.lease("v") is not None for _ in range(2)] == [True, False]


def test_no_lease_waits_behind_one_of_unknown_duration(broker):
    broker.place(order_of("ann", 1, masks_of(1), "training"))
    broker.place(order_of("bob", 1, masks_of(8), "short", seconds=0.01))
    leases = [broker.lease("w"), broker.lease("w")]
    assert leases[0].fingerprint == "training"
    assert leases[1] is None


def test_a_run_has_at_most_as_many_workers_as_it_may(broker):
    broker.open("ann", workers=2)
    for number in range(6):
        broker.place(order_of("ann", number, masks_of(16, seed=number)))
    leases = [broker.lease(f"w{i}") for i in range(4)]
    assert [lease is not None for lease in leases] == [True, True, False, False]
    broker.finish(leases[0].number, measured(leases[0], 1.0))
    assert broker.lease("w2") is not None
    assert broker.lease("w3") is None
    broker.open("ann", workers=None)
    assert broker.lease("w3") is not None


def test_answers_to_an_earlier_broker_are_not_taken_for_those_of_this_one(clock):
    brokers = [Broker(clock), Broker(clock)]
    leases = []
    for broker in brokers:
        broker.open("ann")
        broker.place(order_of("ann", 1, masks_of(4)))
        leases.append(broker.lease("w"))
    assert leases[0].number != leases[1].number
    assert brokers[1].finish(leases[0].number, measured(leases[0])) == []


# ---- deaths


def test_of_a_worker_that_dies_only_the_lease_that_had_begun_is_charged(broker):
    for number in (1, 2):
        broker.place(order_of("ann", number, masks_of(16, seed=number), seconds=0.01))
    begun, waiting = broker.lease("w"), broker.lease("w")
    broker.lose("w", begun=begun.number)
    sizes = {}
    while lease := broker.lease("v"):
        sizes.setdefault(lease.order, []).append(len(lease.rows))
        broker.finish(lease.number, measured(lease, 0.01 * len(lease.rows)))
    assert sizes == {begun.order: [8, 8], waiting.order: [16]}


def test_leases_that_had_not_begun_may_be_lost_any_number_of_times(broker):
    broker.place(order_of("ann", 1, masks_of(1)))
    for _ in range(100):
        assert broker.lease("w") is not None
        assert broker.lose("w", begun=None) == []
    assert rows_told(drain(broker)) == all_rows("ann", 1, 1)


def work(broker, clock, poison, workers, deaths_apart=10 * TOGETHER_SECONDS):
    """Let workers take turns; whoever takes the mask `poison` dies. The deliveries, and the number of deaths."""
    told, deaths = [], 0
    while any(leases := [(worker, lease) for worker in workers if (lease := broker.lease(worker))]):
        for worker, lease in leases:
            if poison.tobytes() in [row.tobytes() for row in lease.packed]:
                clock.now += deaths_apart
                told += broker.lose(worker, begun=lease.number, reason="a signal")
                deaths += 1
            else:
                told += broker.finish(lease.number, measured(lease, 0.01 * len(lease.rows)))
    return told, deaths


@pytest.mark.parametrize("workers", [("a",), ("a", "b"), ("a", "b", "c", "d", "e")])
@pytest.mark.parametrize("row", [0, 5, 63])
def test_a_mask_that_kills_is_found_by_halves_and_ends_only_the_runs_that_asked_for_it(broker, clock, row, workers):
    masks = masks_of(64)
    orders = [order_of("ann", 1, masks), order_of("bob", 1, masks[row : row + 1]), order_of("cy", 1, np.delete(masks, row, axis=0))]
    for order in orders:
        broker.place(order)
    told, deaths = work(broker, clock, orders[1].packed[0], workers)
    errors = [each for each in told if each.error is not None]
    assert {(each.run_id, each.order, *each.rows.tolist()) for each in errors} == {("ann", 1, row), ("bob", 1, 0)}
    assert sorted(rows_told(told)) == all_rows("ann", 1, 64) + all_rows("bob", 1, 1) + all_rows("cy", 1, 63)
    assert deaths <= 6 + 3
    error = errors[0].error
    assert isinstance(error, QuarantinedMaskError)
    assert error.removed == tuple(np.flatnonzero(~masks[row]))
    assert broker.snapshot().quarantined == 1


def test_the_error_names_the_components_that_the_mask_removes_and_survives_pickling(broker, clock):
    broker.place(order := order_of("ann", 1, [[True, False, True, False, True]]))
    told, _ = work(broker, clock, order.packed[0], ("a", "b", "c"))
    components = [Component(i, f"word {i}", "word") for i in range(5)]
    error = pickle.loads(pickle.dumps(told[0].error))
    assert isinstance(error, EvaluationError)
    assert str(error).startswith("evaluators died 3 times of the mask without 2 of 5 components (components 1, 3), last with a signal; ")
    assert str(pickle.loads(pickle.dumps(error.labelled(components)))).startswith(
        "evaluators died 3 times of the mask without 2 of 5 components (word 1 × word 3), last with a signal; "
    )


def test_a_quarantined_mask_kills_nobody_else_until_it_may_be_tried_again(broker, clock):
    masks = masks_of(4)
    broker.place(order := order_of("ann", 1, masks[:1]))
    work(broker, clock, order.packed[0], ("a", "b", "c"))
    (told,) = broker.place(order_of("bob", 1, masks))
    assert (told.run_id, told.rows.tolist(), type(told.error)) == ("bob", [0], QuarantinedMaskError)
    assert sorted(rows_told(drain(broker))) == [("bob", 1, row) for row in (1, 2, 3)]
    clock.now += QUARANTINE_SECONDS
    assert broker.place(order_of("cy", 1, masks)) == []


def test_a_worker_is_not_given_again_what_it_died_of_while_there_are_others(broker, clock):
    broker.place(order_of("ann", 1, masks_of(1)))
    broker.lease("b")
    broker.lose("b", begun=None)
    lease = broker.lease("a")
    assert broker.lease("b") is None
    clock.now += 10
    broker.lose("a", begun=lease.number)
    assert broker.lease("b") is not None
    broker.lose("b", begun=None)
    broker.lease("c")
    broker.lose("c", begun=None)
    assert broker.lease("b") is not None


def test_masks_survive_that_all_workers_are_killed_together_again_and_again(broker, clock):
    """Five kills of all workers at once, while each trains: nothing is quarantined, and everything is measured in the end."""
    workers = ("a", "b", "c", "d")
    for number in range(4):
        broker.place(order_of("ann", number, masks_of(1, seed=number), seconds=30.0))
    for _ in range(5):
        leases = {worker: lease for worker in workers if (lease := broker.lease(worker))}
        clock.now += 6
        for worker, lease in leases.items():
            assert broker.lose(worker, begun=lease.number) == []
    assert len(rows_told(drain(broker, workers))) == 4


def test_a_game_that_kills_whoever_measures_it_ends_its_run(broker, clock):
    """All workers die together again and again here too, but nothing is ever measured."""
    broker.place(order_of("ann", 1, masks_of(4), seconds=1.0))
    told, deaths = [], 0
    while not told and deaths < 200:
        leases = {worker: lease for worker in ("a", "b", "c") if (lease := broker.lease(worker))}
        for worker, lease in leases.items():
            told += broker.lose(worker, begun=lease.number)
            deaths += 1
    assert isinstance(told[0].error, QuarantinedMaskError)
    assert deaths < 100


# ---- costs


def test_a_batch_is_divided_into_equal_parts_of_about_the_limit():
    cost = Cost()
    assert cost.share(4096, 1.0) == 16, "nothing is known"
    cost.observe(16, 0.16)
    assert cost.share(100, 1.0) == 100
    assert cost.share(150, 1.0) == 150
    assert cost.share(310, 1.0) == 78


def test_a_stack_whose_cost_does_not_depend_on_its_size_is_kept_whole():
    cost = Cost()
    cost.observe(8, 10.0)
    assert cost.share(8, 1.0) == 1, "one may cost an eighth"
    cost.observe(1, 9.8)
    cost.compare(-7, -0.2)
    assert cost.share(8, 1.0) == 8
    for _ in range(100):
        cost.observe(8, 10.0)
    assert cost.share(8, 1.0) == 8
    assert cost.seconds(8) == pytest.approx(10.0, rel=0.05)


def test_one_slow_batch_does_not_change_what_is_expected_of_a_game():
    cost = Cost()
    for _ in range(20):
        cost.observe(20, 1.0)
    cost.observe(20, 100.0)
    assert cost.seconds(20) < 1.4


def test_a_slow_worker_is_given_less(broker):
    for number in range(400):
        broker.place(order_of("ann", number, masks_of(20, seed=number)))
    sizes = {}
    for _ in range(12):
        for worker, seconds in (("fast", 0.05), ("slow", 1.0)):
            lease = broker.lease(worker)
            sizes[worker] = len(lease.rows)
            broker.finish(lease.number, measured(lease, seconds * len(lease.rows)))
    assert sizes["fast"] >= 15
    assert sizes["slow"] <= 2


@pytest.mark.parametrize(("each", "settled"), [(0.0, 16), (0.8, 1)])
def test_batches_of_one_size_are_followed_by_a_larger_one_which_tells_whether_it_takes_longer(broker, each, settled):
    """Batches that take .8 s whatever their size are not divided for ever because the first had one mask, and those of .8 s a mask are."""
    sizes = []
    for number, count in enumerate([1, *[16] * 20]):
        broker.place(order_of("ann", number, masks_of(count, seed=number)))
        while (lease := broker.lease("w")) is not None:
            sizes.append(len(lease.rows))
            broker.finish(lease.number, measured(lease, 0.8 + each * (len(lease.rows) - 1)))
    assert sizes[:2] == [1, 2]
    assert set(sizes[-4:]) == {settled}


# ---- slopes


def test_a_run_that_wants_slopes_is_not_told_the_answer_to_one_that_does_not(broker):
    masks = masks_of(8)
    broker.place(order_of("ann", 1, masks))
    broker.place(order_of("bob", 1, masks, slopes=True))
    broker.place(order_of("cy", 1, masks, slopes=True))
    told, leased = [], []
    while lease := broker.lease("w"):
        leased.append((lease.run_id, lease.slopes, len(lease.rows)))
        told += broker.finish(lease.number, measured(lease))
    assert sorted(leased) == [("ann", False, 8), ("bob", True, 8)]
    assert all((each.measurement.slopes is None) == (each.run_id == "ann") for each in told)
    assert sorted(rows_told(told)) == all_rows("ann", 1, 8) + all_rows("bob", 1, 8) + all_rows("cy", 1, 8)


def test_rows_of_an_answer_have_their_slopes(broker):
    masks = masks_of(16)
    broker.place(order_of("ann", 1, masks, slopes=True))
    broker.place(order_of("bob", 1, masks[8:], slopes=True))
    lease = broker.lease("w")
    answer = measured(lease)
    of_ann, of_bob = broker.finish(lease.number, answer)
    np.testing.assert_array_equal(of_ann.measurement.slopes, answer.slopes)
    np.testing.assert_array_equal(of_bob.measurement.slopes[np.argsort(of_bob.rows)], answer.slopes[8:])


def test_what_was_lost_is_measured_with_slopes_again(broker):
    broker.place(order_of("ann", 1, masks_of(8), slopes=True))
    lease = broker.lease("w")
    broker.lose("w", begun=lease.number)
    told = []
    while again := broker.lease("v"):
        assert again.slopes
        told += broker.finish(again.number, measured(again))
    assert sorted(rows_told(told)) == all_rows("ann", 1, 8)
    assert all(each.measurement.slopes is not None for each in told)


def test_values_with_slopes_have_a_cost_of_their_own(broker):
    for number, (sloped, seconds) in enumerate([(False, 0.1), (True, 0.4)] * 3):
        broker.place(order_of("ann", number, masks_of(16, seed=number), slopes=sloped))
        drain(broker, seconds=seconds)
    for number, (sloped, seconds) in enumerate([(False, 0.1), (True, 0.4)], 10):
        broker.place(order_of("ann", number, masks_of(16, seed=number), slopes=sloped))
        lease = broker.lease("w")
        assert lease.seconds == pytest.approx(seconds, rel=0.2)
        broker.finish(lease.number, measured(lease, seconds))
