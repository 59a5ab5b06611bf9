"""The SQL console. Its examples are the documented queries of the store's README."""

import re
from functools import cache
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from raysp.web.pages.rendering import render

router = APIRouter(include_in_schema=False)

_BLOCK = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
_QUESTION = re.compile(r"^-- \d+\. (.*)\n((?:(?!-- \d+\. ).*\n)+)", re.MULTILINE)


class Example(NamedTuple):
    """A question in words, and as SQL."""

    title: str
    query: str


@cache
def examples() -> tuple[Example, ...]:
    """The documented queries."""
    text = resources.files("raysp.store").joinpath("README.md").read_text(encoding="utf-8")
    return tuple(Example(title, query.strip().removesuffix(";")) for block in _BLOCK.findall(text) for title, query in _QUESTION.findall(block))


@router.get("/sql")
def sql(request: Request) -> Response:
    """The console. `?q=QUERY` runs a query."""
    return render(request, "sql.html.j2", examples=examples())
