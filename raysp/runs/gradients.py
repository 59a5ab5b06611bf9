"""The gradient report of a game, for runs, plans and actions: read from the store, or computed once and stored."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from raysp.explorers.base import Explorer
from raysp.game import GameInfo
from raysp.gradients import GradientReport
from raysp.specs.lenses import LensSpec


class HasGradients(Protocol):
    """A game, or a backend that reaches one."""

    info: GameInfo

    def gradient_report(self, max_order: int = 1) -> GradientReport:
        """As `Game.gradient_report`."""
        ...


class GradientStore(Protocol):
    """The part of `raysp.store.Store` that holds gradient reports."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        ...

    def gradient_report(self, fingerprint: str) -> GradientReport | None:
        """As `raysp.store.Store.gradient_report`."""
        ...

    def add_gradient_report(self, info: GameInfo, report: GradientReport) -> None:
        """As `raysp.store.Store.add_gradient_report`."""
        ...


@dataclass
class Gradients:
    """A game's gradient report, cached in the store. `wall_seconds` is the time spent computing it here, 0 if it was found."""

    store: GradientStore
    game: HasGradients
    wall_seconds: float = field(default=0.0, init=False)
    _report: GradientReport | None = field(default=None, init=False)

    def report(self, max_order: int = 1) -> GradientReport:
        """The report with terms of at least `max_order`. Raises as `Game.gradient_report`."""
        if self._report is None:
            self._report = self.store.gradient_report(self.game.info.fingerprint)
        if self._report is None or self._report.max_order < max_order:
            began = time.perf_counter()
            self._report = self.game.gradient_report(max_order)
            self.wall_seconds += time.perf_counter() - began
            if not self.store.read_only:
                self.store.add_gradient_report(self.game.info, self._report)
        return self._report

    def inform(self, explorer: Explorer, lens: LensSpec) -> Explorer:
        """The started explorer, given the report if it requires one, or if it can use one and the report is worth its price.

        UserError if the explorer needs gradients that the game does not have.
        """
        order, n = explorer.gradient_order, self.game.info.n
        if order is None or not (explorer.requires_gradients or explorer.planned(n) <= lens.priors_up_to * n):
            return explorer
        return explorer.with_gradients(self.report(order))
