"""Change fields of the lens in the text of a spec, keeping its comments and its order."""

from collections.abc import Mapping
from typing import Any

import yaml

from raysp.specs.run import run_spec


def with_lens_fields(text: str, changes: Mapping[str, Any]) -> str:
    """The YAML text of a valid spec with these fields of its lens; fields that it lacks are added in front of the others.

    A text in which fields cannot be changed in place, because it uses anchors for instance, is written anew without its comments.
    """
    wanted: dict[str, Any] = yaml.safe_load(text)
    wanted = {**wanted, "lens": {**wanted["lens"], **changes}}
    edited = _edited(text, changes)
    if edited is None or yaml.safe_load(edited) != wanted:
        edited = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=100)
    run_spec(yaml.safe_load(edited))
    return edited


def _edited(text: str, changes: Mapping[str, Any]) -> str | None:
    """The text with the fields' values replaced where they are, the last one first, so that places before it stay; None if the lens has another form."""
    lens = next((value for key, value in yaml.compose(text, Loader=yaml.SafeLoader).value if key.value == "lens"), None)
    if not isinstance(lens, yaml.MappingNode) or not lens.value:
        return None
    places = {key.value: value for key, value in lens.value}
    edits = [(places[name].start_mark.index, places[name].end_mark.index, _written(value)) for name, value in changes.items() if name in places]
    first = lens.value[0][0].start_mark
    between = ", " if lens.flow_style else "\n" + " " * first.column
    fresh = "".join(f"{name}: {_written(value)}{between}" for name, value in changes.items() if name not in places)
    for start, stop, value in sorted([*edits, (first.index, first.index, fresh)], reverse=True):
        text = text[:start] + value + text[stop:]
    return text


def _written(value: Any) -> str:
    """A scalar as YAML writes it."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("\n").removesuffix("\n...").strip()
