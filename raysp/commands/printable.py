"""Text from elsewhere as it may be shown on a terminal."""

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters other than the tab and the line break: among them the escape that begins a terminal's commands."""


def printable(text: str) -> str:
    r"""The text with control characters as they are written in Python, such as \x1b, so that a label cannot command the terminal."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
