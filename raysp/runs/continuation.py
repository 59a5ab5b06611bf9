"""Check that a stored run may be continued: it must ask the same question of the same game."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from raysp.blobs import parse_blob, shown
from raysp.errors import UserError
from raysp.game import GameInfo
from raysp.specs.run import RunSpec


def check_same_game(row: Mapping[str, Any], info: GameInfo, about: str) -> None:
    """Raise UserError naming the changes unless `info` is the game of the run in this row (as from `Store.run_row`); `about` describes the game in a few words."""
    if info.fingerprint == row["game"]["fingerprint"]:
        return
    then, now = row["game"]["description"], info.description
    differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    others = [name for name in differing if name != "dtype"]
    if "dtype" in differing:
        apart = [f"dtype ({then['dtype']} in the run, {now['dtype']} here)", *others]
        raise UserError("run", row["run_id"], f"was computed on a game that differs here in {', '.join(apart)}", f"run it again with --dtype {now['dtype']}")
    raise UserError("run", row["run_id"], f"asked {about} that have changed since ({', '.join(others)})", "run it again")


def check_same_question(row: Mapping[str, Any], spec: RunSpec) -> None:
    """Raise UserError naming each difference unless the run in this row was explored and validated as `spec` says; where it runs may differ.

    The lens is compared by `check_same_game`, which looks at what its values depend on.
    """
    differing = differences(row["spec"], spec)
    if differing:
        told = ", ".join(f"{name} was {before} and is {now} here" for name, (before, now) in differing.items())
        raise UserError("run", row["run_id"], f"was started with another question: {told}", "choose a new run id, or resume the run with its own spec")


def differences(stored: Mapping[str, Any], spec: RunSpec) -> dict[str, tuple[Any, Any]]:
    """The options that determine an answer and differ between a stored spec (as JSON has it) and this one: name to (stored value, this value)."""
    found: dict[str, tuple[Any, Any]] = {}
    for part, options in (("explorer", spec.explorer), ("validation", spec.validation)):
        then, now = stored.get(part) or {}, options.model_dump(mode="json")
        if then.get("kind") != now.get("kind"):
            found[f"{part}.kind"] = (then.get("kind"), now.get("kind"))
            continue
        # Runs of versions without an option behaved as its default does now, and None is not stored.
        known = _defaults(options) | then
        found |= {f"{part}.{name}": (known.get(name), now.get(name)) for name in sorted(known.keys() | now.keys()) if known.get(name) != now.get(name)}
    found = {name: told for name, told in found.items() if not _same_file(*told)}
    for name, default in (("seed", 0), ("cross_check", False)):
        before, now = stored.get(name, default), getattr(spec, name)
        if before != now:
            found[name] = (before, now)
    return found


def _same_file(then: object, now: object) -> bool:
    """Whether two options name one file, once by its path and once by a reference to its content."""
    named = [isinstance(each, str) and parse_blob(each) is not None for each in (then, now)]
    return any(named) and not all(named) and shown(str(then)) == shown(str(now))


def _defaults(options: BaseModel) -> dict[str, Any]:
    return type(options)().model_dump(mode="json")
