"""Calibration before the budget is spent: measure the numeric noise of a run's game and choose the dtype to compute in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysp.game import GameInfo, Measurement
from raysp.masks import Masks
from raysp.specs.lenses import forced_dtype, with_dtype
from raysp.specs.run import AnyLens, RunSpec
from raysp.validation.numeric_noise import SCALES, NoiseSample, NumericNoise, noise_masks, numeric_noise

if TYPE_CHECKING:
    from typing import Protocol

    from raysp.runs.run_store import RunStore

    class NoisyBackend(Protocol):
        """The part of `Backend` that calibration needs."""

        info: GameInfo

        def rebuild(self, lens: AnyLens) -> None:
            """Replace the game by the lens's game."""
            ...

        def noise_sample(self, lens: AnyLens, masks: Masks, first: Measurement | None = None) -> NoiseSample:
            """As `raysp.lenses.numeric_noise.sample_noise`."""
            ...


@dataclass(slots=True)
class Calibration:
    """The numeric noise of a run's game, that of a rejected dtype (None: none was rejected), and the cost of measuring them.

    `sample` has the values of the masks that were measured in the run's dtype, or is None if the noise was found in the store; `evaluations`, `tokens` and
    `seconds` are the cost in addition to those values.
    """

    noise: NumericNoise
    rejected: NumericNoise | None = None
    sample: NoiseSample | None = None
    evaluations: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The figures as plain data, as stored in the run's metrics."""
        return self.noise.row() | {"rejected": None if self.rejected is None else self.rejected.row()}


#: P(keep) of the masks on which noise is measured if the run has yet to choose its own. Few models work without half of their parts, and the spread of values
#: at such masks is not representative of the effects around the intact model.
NEAR_INTACT = 0.9
#: P(keep) of an explorer that has not chosen its own.
UNCHOSEN = 0.5


def calibrate(spec: RunSpec, backend: "NoisyBackend", store: "RunStore", keep_probability: float) -> Calibration | None:
    """Measure the numeric noise of the backend's game, or look it up; with dtype `auto` and noise that is not small, rebuild the game in float32.

    Returns None for a game without a model. The noise is measured once and stored, so the same question always resolves to the same dtype.
    """
    lens, model = spec.lens, spec.lens.loads
    if model is None or "dtype" not in backend.info.description:
        return None
    if lens.default_keep == "auto" and keep_probability == UNCHOSEN:
        keep_probability = NEAR_INTACT
    found = _noise_of(lens, backend, store, keep_probability, seed=spec.seed)
    if model.dtype != "auto" or forced_dtype() or found.noise.dtype == "float32" or found.noise.is_small:
        return found
    backend.rebuild(with_dtype(lens, "float32"))
    reference = found.sample and found.sample.reference
    wide = _noise_of(lens, backend, store, keep_probability, seed=spec.seed, first=reference)
    wide.rejected = found.noise
    wide.evaluations += found.evaluations + (0 if found.sample is None else len(found.sample.masks))
    wide.tokens += found.tokens + (0 if found.sample is None else found.sample.first.tokens)
    wide.seconds += found.seconds + (0.0 if found.sample is None else found.sample.first.seconds)
    if reference is not None and wide.sample is not None:
        # The reference doubles as the plain measurement of the float32 game, where its cost is counted.
        wide.evaluations -= len(wide.sample.masks)
        wide.tokens -= reference.tokens
        wide.seconds -= reference.seconds
    return wide


def _noise_of(
    lens: AnyLens, backend: "NoisyBackend", store: "RunStore", keep_probability: float, *, seed: int, first: Measurement | None = None
) -> Calibration:
    """The noise of the backend's current game, looked up or measured."""
    info = backend.info
    known = store.numeric_noise(info.fingerprint, keep_probability)
    if known is not None:
        return Calibration(NumericNoise(**known))
    dtype, scale = str(info.description["dtype"]), SCALES[lens.cost_class]
    sample = backend.noise_sample(with_dtype(lens, dtype), noise_masks(info.n, scale, keep_probability, seed), first)
    noise = numeric_noise(sample, dtype, scale)
    if not store.read_only:
        store.add_numeric_noise(info.fingerprint, keep_probability, noise.row())
    return Calibration(noise, None, sample, sample.evaluations, sample.tokens, sample.seconds)


def continued_lens(lens: AnyLens, store: "RunStore", run_id: str) -> AnyLens:
    """The lens in the dtype of the run to be continued, if that run exists and both have dtype `auto`."""
    if lens.loads is None or lens.loads.dtype not in ("auto", forced_dtype()) or not store.has_requests(run_id):
        return lens
    return settled_lens(lens, store.run_row(run_id))


def settled_lens(lens: AnyLens, row: dict[str, Any]) -> AnyLens:
    """The lens of a stored run (its row as from `Store.run_row`), with dtype `auto` replaced by the dtype that the run chose."""
    dtype = (row["spec"].get("lens") or {}).get("dtype", "auto")
    return with_dtype(lens, row["dtype"]) if dtype == "auto" and row["dtype"] else lens
