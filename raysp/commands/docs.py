"""The command `docs`: the READMEs of this project's folders in the terminal. Reads files of the package and nothing else."""

from importlib import resources
from typing import Annotated

import typer

from raysp.errors import UserError

#: Topics and the files that hold them, relative to the package. Those under docs/ are links to folders outside it, so that an installed package has them too.
TOPICS = {
    "start": "docs/start.md",
    "map": "README.md",
    "lenses": "lenses/README.md",
    "explorers": "explorers/README.md",
    "validation": "validation/README.md",
    "actions": "actions/README.md",
    "scheduling": "scheduling/README.md",
    "store": "store/README.md",
    "commands": "commands/README.md",
    "datasets": "datasets/README.md",
    "models": "models/README.md",
    "service": "runtime/README.md",
    "web": "web/README.md",
    "remote": "remote/README.md",
    "jobs": "docs/jobs.md",
    "bench": "docs/bench.md",
    "cluster": "docs/cluster.md",
}


def docs(topic: Annotated[str | None, typer.Argument(help="A topic; without one, the topics are listed.", show_default=False)] = None) -> None:
    """Show the documentation of a topic in the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    out = Console()
    if topic is None:
        width = max(map(len, TOPICS))
        out.print("\n".join(f"{name:{width}}  {heading(name)}" for name in TOPICS), markup=False, highlight=False, soft_wrap=True)
        return
    out.print(Markdown(text(topic)))


def text(topic: str) -> str:
    """The Markdown of a topic; UserError for an unknown one."""
    if topic not in TOPICS:
        raise UserError("topic", topic, "is not known", f"choose one of {', '.join(TOPICS)}")
    return resources.files("raysp").joinpath(TOPICS[topic]).read_text(encoding="utf-8")


def heading(topic: str) -> str:
    """The title of a topic."""
    return text(topic).split("\n", 1)[0].lstrip("# ")
