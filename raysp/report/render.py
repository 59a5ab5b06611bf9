"""Renders pages from their templates: as one file that holds its styles and scripts, or as a served page with links to them.

A file allows nothing but its own style and script, by their hashes. A served page needs `style-src 'self'; script-src 'self'`: no template has inline styles.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from raysp.report import agreement, energy, layout, pruning, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import BaseLoader, Environment

STYLES = ("page.css", "charts.css", "table.css", "model.css", "training_set.css")
"""Style sheets of a page, in their order."""
SCRIPTS = ("base.js", "charts.js", "table.js", "arcs.js", "graph.js", "interactions.js", "whatif.js", "queries.js", "page.js")
"""Scripts of a page, in their order. Each adds to the global `raysp`; `charts.js` needs `base.js` alone."""


def environment(*loaders: BaseLoader) -> Environment:
    """A Jinja environment with the report's templates, after those of other loaders, which may extend them."""
    from jinja2 import ChoiceLoader, PackageLoader, StrictUndefined
    from jinja2 import Environment as JinjaEnvironment

    found: Any = JinjaEnvironment(
        loader=ChoiceLoader([*loaders, PackageLoader("raysp.report")]), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.globals |= {"words": words, "energy": energy, "pruning": pruning, "agreement": agreement, "styles": STYLES, "scripts": SCRIPTS, "shade": layout.shade}
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return found


@cache
def asset(name: str) -> str:
    """The text of a style sheet or script. ValueError for a name that is not in `STYLES` or `SCRIPTS`."""
    if name not in (*STYLES, *SCRIPTS):
        raise ValueError(f"{name!r} is not an asset of the report")
    return resources.files("raysp.report").joinpath("templates", name).read_text(encoding="utf-8")


def render(template: str, content: Mapping[str, Any], *, assets: str | None = None, within: Environment | None = None) -> str:
    """A page: one self-contained file, or, given the address `assets` of the folder of its styles and scripts, a page to be served beside them.

    `within` is the environment of the template if it is not the report's own; `content` is extended by what it needs besides.
    """
    css, js = ("", "") if assets is not None else ("\n".join(map(asset, STYLES)), "\n".join(map(asset, SCRIPTS)))
    address = None if assets is None else assets.rstrip("/")
    page = (within or _own()).get_template(template)
    return page.render(**content, assets=address, css=css, js=js, css_hash=_hash(css), js_hash=_hash(js))


@cache
def _own() -> Environment:
    return environment()


def _hash(text: str) -> str:
    """The hash by which a policy allows an inline style or script."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
