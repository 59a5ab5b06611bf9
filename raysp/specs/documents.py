"""YAML documents of plain data, as specs are: parsed within limits, with the line of every field.

A document comes from a person or over the network. Its size, its depth and what its aliases expand to are limited, and a value
that cannot be constructed or stored is an error with a line number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from raysp.errors import UserError

#: Bytes of a document.
MOST_BYTES = 1 << 18
#: Levels of nesting; a spec needs four.
MOST_DEPTH = 32
#: Values of a document, where an alias counts as many as what it stands for.
MOST_NODES = 100_000

Lines = Mapping[tuple[str, ...], int]


def read_document(path: str | Path) -> tuple[dict[str, Any], Lines]:
    """The fields of a YAML file, and the line number (from 1) of every field by its path. UserError with the line of whatever is invalid."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
        raise UserError("spec", str(path), f"cannot be read ({error})", "give the path of a YAML file") from None
    if len(content) > MOST_BYTES:
        raise UserError("spec", str(path), f"is larger than {MOST_BYTES >> 10} KiB", "give the path of a spec; data belong into files that it names")
    return parse_document(text, where=f"spec {path}")


def parse_document(text: str, *, where: str) -> tuple[dict[str, Any], Lines]:
    """As `read_document`, of a text; errors begin with `where`."""
    try:
        loader = _Loader(text)
        try:
            tree = loader.get_single_node()
            fields = None if tree is None else loader.construct_document(tree)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}", None, f"is not valid YAML: {getattr(error, 'problem', None) or error}", "correct the file there") from None
    if tree is None or not isinstance(fields, dict):
        raise UserError(where, None, "has no fields", "write at least lens: {kind: feature, prompt: ...}")
    return fields, _line_numbers(tree, where=where.removeprefix("spec "))


class _Loader(yaml.SafeLoader):
    """SafeLoader within limits: as it composes a node, it counts its values and levels; as it constructs one, every error has a line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # by the id of a composed node, all of which the tree keeps alive

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"it is nested deeper than {MOST_DEPTH} levels", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:  # its own composition has not ended
                raise yaml.MarkedYAMLError(problem="a value contains itself", problem_mark=event.start_mark)
            return node
        size = self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if size > MOST_NODES:
            problem = f"it has more than {MOST_NODES:,} values, counting those that aliases repeat"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:  # such as 2001-99-99, or !!int x
            detail = f" ({str(error)[:80]})" if isinstance(error, ValueError) else ""
            raise yaml.MarkedYAMLError(problem=f"a value cannot be read as {node.tag.rpartition(':')[2]}{detail}", problem_mark=node.start_mark) from None
        if problem := _unusable(value):
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _unusable(value: Any) -> str | None:
    """Why a value that YAML can write cannot be stored: it is no Unicode text, or more than 64 bits long."""
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        return "a text holds a NUL character or half of a surrogate pair"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a whole number has more than 64 bits"
    return None


def _line_numbers(node: yaml.Node, path: tuple[str, ...] = (), *, where: str) -> dict[tuple[str, ...], int]:
    """The line of every field, by path. UserError for a field that is given twice: YAML would keep the last one."""
    found = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            if inner in found:
                place = f"{where}, line {key.start_mark.line + 1}: {'.'.join(inner)}"
                raise UserError(place, None, f"is given twice, first in line {found[inner]}", "remove one of them")
            found |= _line_numbers(value, inner, where=where)
    return found
