"""The runs that one spec asks for: a set of examples, or a question with its repeats on other models or prompts."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from raysp.datasets.examples import read_examples
from raysp.errors import UserError
from raysp.specs.lenses import FeatureLens, LensSpec
from raysp.specs.run import LENSES, RunSpec, resolve_paths


def set_name(spec: RunSpec) -> str | None:
    """What the runs of a set of examples are found by."""
    return (spec.name or spec.examples) if spec.examples else None


@dataclass(frozen=True)
class PlannedRun:
    """One run of several: its spec and what sets it apart."""

    label: str
    spec: RunSpec


def parts(spec: RunSpec) -> list[PlannedRun]:
    """The runs a spec asks for: one an example, or the question itself followed by its repeats."""
    plain = resolve_paths(spec).model_copy(update={"examples": None, "limit": None, "repeat_on": ()})
    if spec.examples is not None:
        if spec.repeat_on:
            raise UserError("repeat_on", list(spec.repeat_on), "does not go with examples", "repeat one example at a time")
        _check_takes_examples(spec)
        lenses = read_examples(spec.examples, cast("FeatureLens", plain.lens), spec.limit)
        return [PlannedRun(label, plain.model_copy(update={"lens": lens})) for label, lens in lenses]
    return [PlannedRun("the question", plain), *(_repeat(plain, wish) for wish in spec.repeat_on)]


def new_run_id() -> str:
    """A run's name: sorts by time, is typed easily and does not collide."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def _repeat(spec: RunSpec, wish: str) -> PlannedRun:
    what, _, value = wish.partition(":")
    if what not in {"model", "prompt"} or not value:
        raise UserError("repeat_on", wish, "is not understood", "write model:NAME or prompt:TEXT")
    if what not in spec.lens.varies:
        raise UserError("lens", spec.lens.kind, f"cannot be repeated on another {what}", f"use the {_kinds(lambda lens: what in lens.varies)} lens")
    return PlannedRun(wish, resolve_paths(spec.model_copy(update={"lens": spec.lens.model_copy(update={what: value})})))


def _check_takes_examples(spec: RunSpec) -> None:
    if not spec.lens.takes_examples:
        supporting = _kinds(lambda lens: lens.takes_examples)
        problem = f"are for the {supporting} lens, and this one is {spec.lens.kind}"
        raise UserError("examples", spec.examples, problem, "give a mechanistic lens its prompts as prompts")


def _kinds(supports: Callable[[type[LensSpec]], bool]) -> str:
    """The kinds of lenses that support something, in words."""
    return " or ".join(kind for kind, lens in LENSES.items() if supports(lens))
