"""A spec written down for people: as YAML, as a shell command and as Python, each with what differs from the defaults. Reading any of them gives the same spec."""

import datetime as dt
import shlex
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from raysp.errors import UserError
from raysp.specs.flags import ESCAPED, OWN_PROMPTS, RENAMED, escaped, flag
from raysp.specs.run import RunSpec

#: The parts of a spec that have fields of their own.
PARTS = ("lens", "explorer", "validation")
#: Columns of a line of Python.
WIDTH = 88
#: The classes that explorers have in Python.
EXPLORERS = {"screen": "Screen", "proxyspex": "ProxySPEX", "spex": "SPEX", "singles": "Singles", "exhaustive": "Exhaustive"}


def as_yaml(spec: RunSpec) -> str:
    """The spec as a YAML document, as `load_spec` reads it. UserError for a Python function."""
    fields = _told(spec)
    return yaml.dump(_plain(fields), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def as_command(spec: RunSpec) -> str:
    """The spec as a shell command: one with flags or, for what flags cannot say, `raysp run` with the document. UserError for a Python function."""
    fields = _told(spec)
    lens, explorer = fields["lens"], fields.get("explorer", {})
    if not _has_flags(spec, fields):
        end = "SPEC"
        text = as_yaml(spec)
        while end in text.splitlines():
            end += "_"
        return f"raysp run /dev/stdin <<'{end}'\n{text}{end}"
    words = ["raysp", lens["kind"]]
    named = {**lens, **explorer, **fields.get("validation", {}), **{name: value for name, value in fields.items() if name not in PARTS}}
    if explorer:
        named["explorer"] = explorer["kind"]
    for name, value in named.items():
        if name != "kind":
            words += _words(name, value)
    return shlex.join(words)


def as_python(spec: RunSpec) -> str:
    """The spec as Python that asks it. UserError for a Python function."""
    fields = _told(spec)
    arguments = {"lens": _call(type(spec.lens).__name__, fields["lens"])}
    if "explorer" in fields:
        arguments["explorer"] = _call(EXPLORERS[spec.explorer.kind], fields["explorer"])
    if "validation" in fields:
        arguments["validation"] = _call("Validation", fields["validation"])
    arguments |= {name: _literal(value) for name, value in fields.items() if name not in PARTS}
    several = spec.examples is not None or spec.repeat_on
    asked = "results = raysp.run_all(spec)" if several else "result = raysp.run(spec)"
    return f"import raysp\n\nspec = {_joined('raysp.RunSpec', arguments, 0)}\n{asked}\n"


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as such, and a short one with an escaped line break."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    # Anything but plain lines of text is quoted: a block would need a mark for each of its peculiarities.
    block = len(lines) > 2 and all(line.isprintable() and line == line.strip() for line in lines) and lines[0] and lines[-1]
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def _told(spec: RunSpec) -> dict[str, Any]:
    """The fields that differ from the defaults, those of the parts of a spec in mappings of their own."""
    if spec.lens.own_code is not None:
        raise UserError("lens", spec.lens.kind, "is a Python function, which cannot be written down", "keep the script that it is in")
    fields: dict[str, Any] = {"lens": {"kind": spec.lens.kind, **_differing(spec.lens, {})}}
    explored = _differing(spec.explorer, {})
    if explored or spec.explorer.kind != RunSpec.model_fields["explorer"].get_default().kind:
        fields["explorer"] = {"kind": spec.explorer.kind, **explored}
    usual = spec.lens.default_validation.model_dump()
    if checked := _differing(spec.validation, usual):
        fields["validation"] = checked
    return fields | _differing(spec, {}, PARTS)


def _differing(model: BaseModel, usual: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a model that are not `usual`, by default the model's own defaults."""
    found: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name != "kind" and name not in without and not field.exclude and value != usual.get(name, field.get_default(call_default_factory=True)):
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    """The value as YAML has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def _has_flags(spec: RunSpec, fields: Mapping[str, Any]) -> bool:
    """Whether flags can say everything that the spec says."""
    texts = [(name, value) for part in (fields, *(fields.get(part, {}) for part in PARTS)) for name, value in part.items() if isinstance(value, str)]
    if any("\0" in value or (name in ESCAPED and "\\" in value) for name, value in texts):
        return False
    return not (set(OWN_PROMPTS.get(spec.lens.kind, ())) & fields.keys()) and _are_texts(fields.get("explorer", {}))


def _are_texts(told: Mapping[str, Any]) -> bool:
    """Whether flags, which are texts, can say what lists these options of an explorer have: an index and the number that is a label are alike, and no flag is an empty list."""
    return not any(isinstance(value, tuple) and not (value and all(isinstance(each, str) for each in value)) for value in told.values())


def _words(name: str, value: Any) -> list[str]:
    """The words that say a field on the command line."""
    option = flag(RENAMED.get(name, name))
    if value is True:
        return [option]
    if isinstance(value, tuple):
        return [word for each in value for word in (option, str(each))]
    return [option, escaped(name, str(value))]


def _call(name: str, fields: Mapping[str, Any]) -> str:
    return _joined(f"raysp.{name}", {name: _literal(value) for name, value in fields.items() if name != "kind"}, 4)


def _joined(called: str, arguments: Mapping[str, str], indent: int) -> str:
    """A call with its arguments in a line if they fit, otherwise with a line each."""
    told = [f"{name}={value}" for name, value in arguments.items()]
    line = f"{called}({', '.join(told)})"
    if indent + len(line) <= WIDTH and "\n" not in line:
        return line
    inner, outer = " " * (indent + 4), " " * indent
    return f"{called}(\n" + "".join(f"{inner}{each},\n" for each in told) + f"{outer})"


def _literal(value: Any) -> str:
    """A value as Python writes it."""
    return repr(value.isoformat() if isinstance(value, dt.date) else value)
