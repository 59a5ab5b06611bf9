"""A stored run answers for subsets that nobody measured, with intervals that hold, and without a model."""

import numpy as np
import pytest
from answered_games import N, planted
from tiny_models import save

import raysp
from raysp.game import distinct_labels
from raysp.runs.exact import measure
from raysp.runs.local import local_backend
from raysp.runs.prediction import COMPARED, LEVEL, Measured, bounds, caution, component_numbers, deviations, mask_of, predict, predict_stored, read_subset
from raysp.sampling.draws import random_masks
from raysp.spectral.fourier import FourierSurrogate
from raysp.spectral.points import Points

LABELS = ("The", "film", ",", "never", "fails", ",", "7", "never, ever")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3,4", [3, 4]), (" 4 , film,4", [1, 4]), ("", []), ("never", [3]), ("7", [7]), ("never, ever", [7]), ("never, fails", [3, 4])],
)
def test_components_are_named_by_number_or_label(text, numbers):
    assert read_subset(text, LABELS) == numbers


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([","], r"',' is ambiguous: it is the label of components 2 \(,\), 5 \(,\); give the index of one of them"),
        (["plot"], r"'plot' is not a component of this run; give an index from 0 to 7, or a label"),
        ([8], r"8 is not a component"),
        ([-1], r"-1 is not a component"),
    ],
)
def test_a_name_that_is_nobodys_or_several_components_is_refused_in_a_line(names, message):
    with pytest.raises(raysp.UserError, match=message) as caught:
        component_numbers(names, LABELS)
    assert "\n" not in str(caught.value)


def test_a_label_without_its_number_is_refused_as_ambiguous():
    numbered = (*distinct_labels(["w0", "b", " w0"]), "c (2)", *distinct_labels(["w0", "x", "w0"]))
    assert numbered == ("w0", "b", " w0", "c (2)", "w0 ①", "x", "w0 ②")
    assert component_numbers(["w0", "w0 ②"], numbered) == [0, 6]  # a label of its own is no other's
    message = r"components: 'w0' is ambiguous: it is the label of components 1 \(w0 ①\), 3 \(w0 ②\); give the index of one of them$"
    for apart in (" w0", "w0"):
        with pytest.raises(raysp.UserError, match=message):
            read_subset("b,w0", distinct_labels(["b", apart, "x", apart]))
    with pytest.raises(raysp.UserError, match="'c' is not a component of this run"):
        read_subset("c", numbered)
    many = distinct_labels(["x"] * 51)
    with pytest.raises(raysp.UserError, match=r"'x' is ambiguous: .*, 19 \(x ⑳\), 20 \(x ㉑\), .*49 \(x ㊿\), 50 \(x \(51\)\)"):
        component_numbers(["x"], many)


def test_either_what_is_removed_or_what_is_kept_makes_a_mask():
    assert mask_of(("a", "b", "c"), [1], None).tolist() == [[True, False, True]]
    assert mask_of(("a", "b", "c"), None, ["b"]).tolist() == [[False, True, False]]
    assert mask_of(("a", "b", "c"), None, []).tolist() == [[False, False, False]]
    for removed, kept in ((None, None), ([0], [1])):
        with pytest.raises(ValueError, match="either removed or kept"):
            mask_of(("a", "b"), removed, kept)


def noisy(masks, seed):
    """A main effect each, and noise that grows with what is removed: what the surrogate below cannot know."""
    gone = (~masks).sum(axis=1)
    return masks @ np.arange(1.0, 13) + np.random.default_rng(seed).normal(size=len(masks)) * (0.1 + gone)


def test_intervals_hold_as_often_as_they_say_at_every_size():
    rng, n = np.random.default_rng(0), 12
    surrogate = FourierSurrogate.from_deviations(n, float(np.arange(1.0, 13).sum()), {(i,): i + 1.0 for i in range(n)})
    known = np.concatenate([random_masks(n, 300, 0.5, rng), random_masks(n, 100, 0.9, rng)])
    measured = Measured(known, noisy(known, 1), np.zeros(len(known), dtype=bool))
    widths = []
    for share in (0.5, 0.9):
        fresh = rng.random((2000, n)) < share
        found = predict(surrogate, measured, fresh, [str(i) for i in range(n)], np.full(2000, np.nan))
        exact = noisy(fresh, 2)
        held = np.mean([each.lo <= value <= each.hi for each, value in zip(found, exact, strict=True)])
        assert held > LEVEL - 0.05
        widths.append(np.mean([each.hi - each.lo for each in found]))
    assert widths[0] > 2 * widths[1]


def test_few_measured_masks_promise_less_and_none_promise_nothing():
    surrogate = FourierSurrogate.from_dict(4, {(): 1.0})
    masks = random_masks(4, 9, 0.5, np.random.default_rng(0))
    few = predict(surrogate, Measured(masks, np.arange(9.0), np.zeros(9, dtype=bool)), masks[:1], "abcd", np.array([np.nan]))[0]
    assert few.coverage == pytest.approx(0.9)
    assert (few.lo, few.hi, few.compared) == (1.0 - 7.0, 1.0 + 7.0, 9)
    none = predict(surrogate, Measured(masks, np.arange(9.0), np.ones(9, dtype=bool)), masks[:1], "abcd", np.array([2.0]))[0]
    assert (none.lo, none.hi, none.coverage, none.compared, none.measured) == (None, None, None, 0, 2.0)


def test_a_size_beyond_all_that_were_measured_is_reported_to_be_extrapolated():
    surrogate, masks = FourierSurrogate.from_dict(6, {(): 1.0}), ~np.eye(6, dtype=bool)
    known = Measured(masks, np.ones(6), np.zeros(6, dtype=bool))
    near, far = predict(surrogate, known, np.array([[True] * 5 + [False], [False] * 6]), "abcdef", np.full(2, np.nan))
    assert (near.extrapolated, far.extrapolated) == (False, True)


def test_bounds_of_every_size_come_from_the_masks_that_remove_about_as_many():
    rng, n = np.random.default_rng(3), 40
    masks = np.concatenate([random_masks(n, 150, share, rng) for share in (0.3, 0.5, 0.9)])
    known = Measured(masks, rng.normal(size=len(masks)), rng.random(len(masks)) < 0.3)
    surrogate = FourierSurrogate.from_dict(n, {(): 0.1, (3,): 0.4, (5, 7): -0.2})
    rows = np.flatnonzero(~known.fitted)
    sizes, residuals = (~masks[rows]).sum(axis=1), np.abs(known.values[rows] - surrogate.predict(masks[rows]))
    every = bounds(surrogate, known)
    assert len(every) == n + 1
    for size, bound in enumerate(every):
        distances = np.abs(sizes - size)
        near = distances <= np.sort(distances)[COMPARED - 1]
        rank = min(int(np.ceil((near.sum() + 1) * LEVEL)), near.sum())
        assert bound.compared == near.sum() >= COMPARED
        assert bound.half_width == np.sort(residuals[near])[rank - 1]
        assert bound.extrapolated is not (sizes[near].min() <= size <= sizes[near].max())
    assert bounds(surrogate, known, np.array([7, 2])) == [every[7], every[2]]
    asked_for = predict(surrogate, known, masks[:5], [str(i) for i in range(n)], np.full(5, np.nan))
    assert [each.hi - each.value for each in asked_for] == pytest.approx([every[len(each.removed)].half_width for each in asked_for])


def test_a_caution_comes_with_an_interval_that_is_missing_too_narrow_or_of_few_masks():
    surrogate, masks = FourierSurrogate.from_dict(4, {(): 1.0}), random_masks(4, 9, 0.5, np.random.default_rng(0))
    for fitted, message in ((True, "There are no intervals"), (False, "Intervals come from 9 subsets, which is enough for 90% coverage only")):
        [bound] = bounds(surrogate, Measured(masks, np.arange(9.0), np.full(9, fitted)), np.array([int((~masks[0]).sum())]))
        assert caution(bound).startswith(message)
    everything = np.array([[number >> i & 1 == 1 for i in range(4)] for number in range(16)])
    assert {caution(bound) for bound in bounds(surrogate, Measured(everything, np.ones(16), np.ones(16, dtype=bool)))} == {None}


def asked(explorer=None, **options):
    lens = raysp.FunctionLens(planted, n=N, labels=tuple(f"w{i}" for i in range(N)))
    return raysp.run(raysp.RunSpec(lens=lens, explorer=explorer or raysp.ProxySPEX(budget=400, max_order=3), seed=1, local=True, **options))


def test_a_result_predicts_what_its_function_says(home):
    result = asked()
    for removed in ([4], [4, 7], ["w2", 9], [0, 1, 2, 3]):
        found = result.predict(removed=removed)
        mask = mask_of([f"w{i}" for i in range(N)], removed, None)
        assert found.lo - 1e-9 <= planted(mask)[0] <= found.hi + 1e-9
        assert found.value == pytest.approx(planted(mask)[0], abs=0.5)
        assert found.removed == tuple(np.flatnonzero(~mask[0]))
        with raysp.Store.read(home / "raysp.duckdb") as store:
            assert predict_stored(store, result.run_id, mask) == [found]
    assert result.predict(kept=range(N)).measured == pytest.approx(planted(np.ones((1, N), dtype=bool))[0])


def test_what_a_run_measured_around_its_input_is_certain():
    result = asked()
    for removed in ([], [4]):
        found = result.predict(removed=removed)
        assert found.lo == found.value == found.hi == pytest.approx(found.measured)
    # Which larger sets a run has measured is up to chance.
    other = next(found for i in range(5, 10) if (found := result.predict(removed=[0, 1, 2, 3, 4, i])).measured is None)
    assert other.lo < other.value < other.hi


def test_a_run_that_measured_everything_is_exact():
    found = asked(raysp.Exhaustive()).predict(removed=[4, 7])
    assert found.lo == found.value == found.hi == pytest.approx(found.measured)
    assert found.coverage == 1.0


def test_a_run_without_a_surrogate_says_so(home):
    result = asked()
    with raysp.Store.open(home / "raysp.duckdb") as store:
        store.finish_run(result.run_id, "failed", {})
        row = raysp.read_result(store, result.run_id)
    with pytest.raises(raysp.UserError, match="has no surrogate in the store"):
        row.predict(removed=[1])


def test_a_function_cannot_be_measured_again(home):
    result = asked()
    with raysp.Store.open(home / "raysp.duckdb") as store, pytest.raises(raysp.UserError, match="Python function, which is not in the store"):
        measure(store, result.run_id, random_masks(N, 3, 0.3, np.random.default_rng(9)), local_backend, lambda _: None)


def test_exact_values_come_from_the_model_once_and_stay(home, tmp_path):
    lens = raysp.FeatureLens(
        model=save("llama", tmp_path / "model"), prompt="Her acting never fails to impress", target=" not", foil="!", dtype="float32", device="cpu"
    )
    spec = raysp.RunSpec(lens=lens, explorer=raysp.Singles(budget=10), local=True, validation=raysp.Validation(heldout=4, top=0, random=0, low_pairs=0))
    result = raysp.run(spec)
    n = result.summary["n"]
    with raysp.Store.open(home / "raysp.duckdb") as store:
        every = np.array([[bool(number >> i & 1) for i in range(n)] for number in range(2**n)])
        masks = every[np.isnan(store.known(result.summary["game_id"], every))][:2]
        assert [each.measured for each in predict_stored(store, result.run_id, masks)] == [None, None]
        measure(store, result.run_id, masks, local_backend, lambda _: None)
        found = predict_stored(store, result.run_id, masks)
        assert [each.measured for each in found] == pytest.approx(raysp.build_game(lens).evaluate(masks).tolist(), abs=1e-5)
        count = store.sql("FROM evaluations").num_rows
        measure(store, result.run_id, masks, local_backend, lambda _: None)
        assert store.sql("FROM evaluations").num_rows == count
        assert store.run_evaluations(result.run_id, "predict").num_rows == 2
        assert store.run_row(result.run_id)["status"] == "done"


def test_a_predicted_deviation_is_as_uncertain_as_the_values_that_were_not_measured():
    rng = np.random.default_rng(0)
    surrogate = FourierSurrogate.from_dict(8, {(): 1.0, (0,): 0.5, (0, 1): 0.25})
    masks = random_masks(8, 120, 0.5, rng)
    values = surrogate.predict(masks) + rng.normal(0, 0.1, len(masks))
    known = Measured(masks, values, np.arange(len(masks)) < 60)
    singles = np.ones((9, 8), dtype=bool)
    singles[np.arange(1, 9), np.arange(8)] = False
    written = surrogate.with_points(Points(singles, np.zeros(9), np.zeros(9), np.ones(9)))
    (pair, single), (wide, none) = deviations(written, known, [(1, 0), (2,)])
    assert pair == pytest.approx(surrogate.index("additivity", 2, 2)[1][0])
    assert single == none == 0
    assert wide == pytest.approx(bounds(written, known, np.array([2]))[0].half_width)
    assert deviations(surrogate, known, [(0, 1)])[1][0] > 3 * wide
    assert np.isnan(deviations(written, Measured(masks, values, np.ones(len(masks), dtype=bool)), [(0, 1)])[1][0])
