"""What a scheduler admits: its policy, and the stores that every question may use. Whatever reaches a runner, an evaluator or a store is checked here."""

from pathlib import Path

from raysp.home import store_path
from raysp.specs.policy import Policy, check, check_lens, check_store
from raysp.specs.run import AnyLens, RunSpec


class Admission:
    """The policy of a service, and the path of the store that is its `own`. UserError is raised for what they do not allow."""

    def __init__(self, policy: Policy, own: Path | None) -> None:
        self._policy, self._own = policy, own

    @property
    def store(self) -> Path:
        """The store of questions that name none."""
        return self._own or store_path()

    def check(self, spec: RunSpec) -> None:
        """Check a question that is to be run, whether it was submitted just now or comes from a store."""
        check(self._policy, spec.model_copy(update={"store": None}) if self._is_own(store_path(spec.store)) else spec)

    def check_lens(self, lens: AnyLens) -> None:
        """Check a lens whose game is to be built."""
        check_lens(self._policy, lens)

    def check_store(self, path: Path) -> None:
        """Check a store that is to be read or written."""
        if not self._is_own(path):
            check_store(self._policy, str(path))

    def _is_own(self, path: Path) -> bool:
        return path in (self._own, store_path())
