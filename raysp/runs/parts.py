"""The runs that one spec expands to: one per example, or a question and its repeats on other models or prompts."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from raysp.blobs import shown
from raysp.datasets.examples import read_examples
from raysp.errors import UserError
from raysp.specs.lenses import FeatureLens, LensSpec, with_model
from raysp.specs.run import LENSES, RunSpec, resolve


def set_name(spec: RunSpec) -> str | None:
    """The name shared by the runs on a set of examples, None for other specs."""
    return (spec.name or shown(spec.examples)) if spec.examples else None


@dataclass(frozen=True)
class PlannedRun:
    """One run of several: its spec, and a label that tells it apart."""

    label: str
    spec: RunSpec


def parts(spec: RunSpec) -> list[PlannedRun]:
    """The runs that a spec expands to: one per example, or the question itself followed by its repeats."""
    plain = resolve(spec).model_copy(update={"examples": None, "limit": None, "repeat_on": ()})
    if spec.examples is not None:
        if spec.repeat_on:
            raise UserError("repeat_on", list(spec.repeat_on), "cannot be combined with examples", "repeat one example at a time")
        _check_takes_examples(spec)
        lenses = read_examples(spec.examples, cast("FeatureLens", plain.lens), spec.limit)
        return [PlannedRun(label, plain.model_copy(update={"lens": lens})) for label, lens in lenses]
    return [PlannedRun("the question", plain), *(_repeat(plain, variant) for variant in spec.repeat_on)]


def new_run_id() -> str:
    """A new run id that sorts by time, is easy to type and does not collide."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def new_run_ids(count: int) -> list[str]:
    """New ids for runs that are submitted together: numbered if there are several, as random ends of so many would collide."""
    return numbered(new_run_id(), count)


def numbered(first: str, count: int) -> list[str]:
    """The ids of so many runs that belong together: what they share, with a number at its end if there are several."""
    return [first] if count == 1 else [f"{first}-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def _repeat(spec: RunSpec, variant: str) -> PlannedRun:
    what, _, value = variant.partition(":")
    if what not in {"model", "prompt"} or not value:
        raise UserError("repeat_on", variant, "is not valid", "write model:NAME or prompt:TEXT")
    if what not in spec.lens.varies:
        raise UserError("lens", spec.lens.kind, f"cannot be repeated on another {what}", f"use the {_kinds(lambda lens: what in lens.varies)} lens")
    lens = with_model(spec.lens, value) if what == "model" else spec.lens.model_copy(update={what: value})
    return PlannedRun(variant, resolve(spec.model_copy(update={"lens": lens})))


def _check_takes_examples(spec: RunSpec) -> None:
    if not spec.lens.takes_examples:
        supporting = _kinds(lambda lens: lens.takes_examples)
        problem = f"are only for the {supporting} lens, not for {spec.lens.kind}"
        raise UserError("examples", spec.examples, problem, "give the prompts of a mechanistic lens as prompts")


def _kinds(supports: Callable[[type[LensSpec]], bool]) -> str:
    """The kinds of lenses that support a feature, in words."""
    return " or ".join(kind for kind, lens in LENSES.items() if supports(lens))
