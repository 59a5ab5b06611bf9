"""How fields of specs are called on the command line: the one mapping that options are made from and that commands are written with."""

from collections.abc import Mapping

#: Options in which \n and \t stand for a line break and a tab, which are hard to type on a command line.
ESCAPED = frozenset({"template", "delimiter", "replacement"})
RENAMED: Mapping[str, str] = {"examples": "prompts"}
#: Run options that a lens does not take, because its own options have that role.
OWN_PROMPTS: Mapping[str, tuple[str, ...]] = {"mechanistic": ("examples", "limit"), "data": ("examples", "limit", "repeat_on")}


def flag(name: str) -> str:
    """The option of a field, or of an option's name in Python."""
    return "--" + name.replace("_", "-")


def unescaped(name: str, value: str) -> str:
    """What an option's text stands for."""
    return value.replace("\\n", "\n").replace("\\t", "\t") if name in ESCAPED else value


def escaped(name: str, value: str) -> str:
    """The text of an option that stands for a value."""
    return value.replace("\n", "\\n").replace("\t", "\\t") if name in ESCAPED else value
