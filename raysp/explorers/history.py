"""What earlier questions about the same components are worth to the next one: their mean answer, scaled to its values, and a kernel on what that leaves.

Heads that matter in one prompt matter in similar ones, and often in the same combinations. How much, the values decide: the mean answer is one more model among
those that are stacked by cross-validation, so that a history that has nothing to do with the question gets no weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysp.explorers.proxies import kernel, scaled
from raysp.explorers.samples import Proposal, Proxy, Rows, Sample
from raysp.spectral.fourier import FourierSurrogate

#: The beginning of the names of models that start from earlier answers.
HISTORY = "history"


@dataclass(frozen=True)
class Answers:
    """The `mean` of `count` earlier answers, each divided by its standard deviation over random masks."""

    mean: FourierSurrogate
    count: int

    @classmethod
    def of(cls, answers: Sequence[FourierSurrogate], max_order: int) -> Answers | None:
        """From surrogates on the same components, None if there are none; only terms up to order `max_order` are used."""
        if not answers:
            return None
        even = [answer.rebased() for answer in answers]
        kept = [answer.take(answer.sets.orders <= max_order) for answer in even]
        spread = [float(np.sqrt((answer.coefficients[answer.sets.orders > 0] ** 2).sum())) for answer in kept]
        return cls(FourierSurrogate.combined(kept, [1 / each / len(kept) if each > 0 else 0.0 for each in spread]), len(kept))

    def note(self, weights: Mapping[str, float]) -> str:
        """A sentence on their part in a surrogate whose models have these weights."""
        what = "The answer of an earlier run" if self.count == 1 else f"The mean answer of {self.count} earlier runs"
        share = sum(weight for name, weight in weights.items() if name.startswith(HISTORY))
        part = f"models that start from it make up {share:.0%} of the surrogate" if share else "it did not help, and is not used"
        return f"{what} about the same components was tried as a prior: {part}."


@dataclass(frozen=True)
class Remembering:
    """The models of a proxy; a mean earlier answer, scaled to the values; and the kernel on what that leaves unexplained."""

    inner: Proxy
    answer: FourierSurrogate

    def __call__(self, sample: Sample, parts: Sequence[Rows]) -> dict[str, Proposal]:
        """Propose models by name; see `Proxy`."""
        found = self.inner(sample, parts) if sample.allows_interactions or sample.allows_slopes else {}
        known = self.answer.rebased(sample.keep_probability)
        first = scaled(sample.representative, parts, known)
        found[HISTORY] = first
        if not sample.allows_interactions or sample.wide:
            return found
        # Rows that are in no fold, such as those around the intact input, are what the fit to all others leaves of them.
        guess = np.where(np.isnan(first.held_out), first.build().predict(sample.masks), first.held_out)
        rest = replace(sample, values=sample.values - guess, slopes=None)
        if rest.varies:
            more = kernel(rest, parts)["kernel"]
            held_out = first.held_out + more.held_out
            found[f"{HISTORY} and kernel"] = Proposal(held_out, lambda: FourierSurrogate.combined([first.build(), more.build()], [1.0, 1.0]))
        return found
