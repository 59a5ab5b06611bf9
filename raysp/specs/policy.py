"""What a service allows the questions that arrive at it to do on its machines.

An embedded Ray of one's own allows what its user may do anyway (`EVERYTHING`). A service that others may reach allows what its policy file says, by default
models and data sets of the hub and nothing else (`Policy()`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from raysp.blobs import parse_blob
from raysp.errors import UserError
from raysp.specs.lenses import LensSpec, ModelOptions
from raysp.specs.run import RunSpec

#: A name on the hub: `model`, or `owner/model`. Neither a path nor the beginning of one.
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
#: A data set on the hub, with its configuration and split; or an installed corpus with its parts.
_DATA_SET = re.compile(r"hf:(?P<name>[^:]+)(:[\w.+-]*){0,2}|corpus:.*", re.ASCII)


class Policy(BaseModel, extra="forbid", frozen=True):
    """What a service allows. Every field can be set in its policy file."""

    models: tuple[str, ...] = Field(default=("*",), description="Models that may be asked about: names, with * for any text.")
    data_sets: tuple[str, ...] = Field(default=("*",), description="Data sets of the hub that may be read: names, with * for any text.")
    files: bool = Field(default=False, description="Whether questions may name files and model folders of the service's machines.")
    pickled_weights: bool = Field(default=False, description="Whether allow_pickle is accepted: pickled weights can run code.")
    remote_code: bool = Field(default=False, description="Whether allow_remote_code is accepted: it runs code from the model's repository.")
    functions: bool = Field(default=False, description="Whether Python functions are accepted, which run on the service's machines.")


#: The policy of a Ray that its user started for themselves.
EVERYTHING = Policy(files=True, pickled_weights=True, remote_code=True, functions=True)


def load_policy(path: str | Path) -> Policy:
    """The policy in a YAML file. UserError for a file that cannot be read or is not a policy."""
    try:
        fields = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Policy.model_validate({} if fields is None else fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1]) or "policy"
        raise UserError(
            f"policy {path}, {field}", first["input"], f"is not valid ({first['msg']})", f"known fields: {', '.join(Policy.model_fields)}"
        ) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError("policy", str(path), f"cannot be read ({problem})", "give a YAML file with fields of a policy") from None


def check(policy: Policy, spec: RunSpec) -> None:
    """UserError for whatever a spec that arrives at a service asks for and the policy does not allow. Opens no file and loads nothing."""
    check_lens(policy, spec.lens)
    _check_data_sets(policy, {"examples": spec.examples} if spec.examples else {})
    _check_models(policy, [variant.removeprefix("model:") for variant in spec.repeat_on if variant.startswith("model:")])
    _check_files(policy, spec.explorer.files)
    if spec.store is not None:
        check_store(policy, spec.store)


def check_lens(policy: Policy, lens: LensSpec) -> None:
    """As `check`, of a lens alone."""
    if lens.own_code is not None and not policy.functions:
        raise _refused("lens", "function", "is a Python function, which this service does not run", "functions")
    if lens.loads is not None:
        _check_models(policy, [lens.loads.model])
        _check_code(policy, lens.loads)
    _check_data_sets(policy, lens.data_sets)
    _check_files(policy, lens.files)


def check_store(policy: Policy, path: str) -> None:
    """As `check`, of the path of a store alone."""
    _check_files(policy, {"store": path})


def _check_files(policy: Policy, named: Mapping[str, str]) -> None:
    for field, source in named.items():
        if parse_blob(source) is None and not policy.files:
            raise _refused(field, source, "names a file of the service's machines", "files")


def _check_models(policy: Policy, names: Sequence[str]) -> None:
    for name in names:
        if not _ON_HUB.fullmatch(name) and not policy.files:
            raise _refused("model", name, "names a folder of the service's machines", "files")
        if not any(fnmatchcase(name, pattern) for pattern in policy.models):
            raise UserError(
                "model", name, "is not among the models of this service", f"use one of {', '.join(policy.models)}, or add it to models in its policy"
            )


def _check_code(policy: Policy, lens: ModelOptions) -> None:
    if lens.allow_pickle and not policy.pickled_weights:
        raise _refused("allow_pickle", None, "is set, and pickled weights can run code", "pickled_weights")
    if lens.allow_remote_code and not policy.remote_code:
        raise _refused("allow_remote_code", None, "is set, and this service runs no code of models", "remote_code")


def _check_data_sets(policy: Policy, named: Mapping[str, str]) -> None:
    for field, source in named.items():
        if parse_blob(source) is not None:
            continue
        found = _DATA_SET.fullmatch(source)
        name = found["name"] if found else None
        if found is None or (name is not None and not _ON_HUB.fullmatch(name)):
            if not policy.files:
                raise _refused(field, source, "names a file of the service's machines (write hf: before a name on the hub)", "files")
        elif name is not None and not any(fnmatchcase(name, pattern) for pattern in policy.data_sets):
            raise UserError(
                field, source, "is not among the data sets of this service", f"use one of {', '.join(policy.data_sets)}, or add it to data_sets in its policy"
            )


def _refused(field: str, value: str | None, problem: str, allowance: str) -> UserError:
    return UserError(field, value, problem, f"leave it out, or have {allowance}: true written into the policy of the service")


@dataclass(frozen=True, slots=True)
class Consent:
    """What the person at the keyboard allows a question from a store to do, whatever was allowed when it was asked: the store may be anybody's."""

    allow_pickle: bool = False
    allow_remote_code: bool = False

    def check(self, run_id: str, lens: Mapping[str, Any]) -> None:
        """UserError if the lens of a stored run (as plain data) loads what can run code, and that is not allowed now."""
        for field, what in (("allow_pickle", "pickled weights, which can run code"), ("allow_remote_code", "code from the model's repository")):
            if lens.get(field) and not getattr(self, field):
                problem = f"was set when run {run_id} was asked: it loads {what}"
                raise UserError(field, None, problem, f"give --{field.replace('_', '-')} again if you trust {lens.get('model')}")


NO_CONSENT = Consent()
