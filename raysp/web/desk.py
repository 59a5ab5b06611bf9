"""What the web end asks of a service: everything that changes or measures something. Reading goes to the store, not through here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raysp.datasets.content import Content
from raysp.masks import Masks
from raysp.runs.state import Desired, RunRequest, RunState, ServiceStatus
from raysp.specs.lenses import FeatureLens
from raysp.specs.policy import Policy
from raysp.specs.run import RunSpec
from raysp.spectral.fourier import FourierSurrogate


@dataclass(frozen=True)
class Settings:
    """What a web end is told when it starts: the token that everybody must have, the store, what questions may do, and addresses of other pages."""

    token: str = field(repr=False)
    store: Path
    policy: Policy = field(default_factory=Policy)
    dashboard: str | None = None
    grafana: str | None = None


class Desk(Protocol):
    """A service as the web end sees it. Every method may be called from any thread and raises UserError for what the service refuses, or if it does not answer."""

    def submit(self, requests: Sequence[RunRequest]) -> None:
        """Queue runs; when this returns, their rows are written."""
        ...

    def steer(self, run_id: str, desired: Desired) -> RunState:
        """Pause, cancel or continue a run."""
        ...

    def changes(self, since: int, timeout: float) -> list[RunState]:
        """The states that are newer than a version, after waiting at most `timeout` seconds for the first."""
        ...

    def status(self) -> ServiceStatus:
        """What the service has to do, and with what."""
        ...

    def keep_open(self, path: Path) -> None:
        """Have the store left open for a while, so that readers read snapshots and keep no writer waiting."""
        ...

    def measure(self, run_id: str, masks: Masks) -> None:
        """Measure masks (bool, `(k, n)`) of a run's game with its model, and store their values."""
        ...

    def plan(self, spec: RunSpec, content: Content) -> dict[str, Any]:
        """Sizes and costs of a run, as `raysp.runs.plan.plan_run`. `content` is what its spec refers to, which is stored."""
        ...

    def preview(self, lens: FeatureLens, content: Content) -> dict[str, Any]:
        """The components of a prompt and the tokens that the model would say next, as `raysp.lenses.preview.preview`. `content` is what the lens refers to."""
        ...

    def flips(self, surrogate: FourierSurrogate, threshold: float, most: int) -> list[tuple[int, ...]]:
        """For each size up to `most`, the set whose removal carries the surrogate's value across `threshold`, the smallest first, as `raysp.actions.flip.flips`."""
        ...
