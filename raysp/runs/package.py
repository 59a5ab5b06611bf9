"""Questions in a folder: what travels to a cluster that is reached from outside. Knows nothing of how the folder travels.

The folder holds `question.json` and, in `blobs/`, the content of the files that the question names, each under its SHA-256; nothing else of the sender's machine.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from raysp.errors import UserError
from raysp.runs.state import RunRequest, spec_json
from raysp.specs.run import run_spec
from raysp.version import __version__

QUESTION, BLOBS = "question.json", "blobs"
#: What becomes of the runs when the job that follows them is stopped.
WhenStopped = Literal["pause", "cancel", "continue"]


@dataclass(frozen=True)
class Package:
    """The runs that are asked for together, what becomes of them when the job is stopped, and whether the answer is printed as JSON."""

    requests: tuple[RunRequest, ...]
    when_stopped: WhenStopped = "pause"
    json: bool = False

    @property
    def run_ids(self) -> list[str]:
        """The ids of the runs, in order."""
        return [request.run_id for request in self.requests]


def check_when_stopped(text: str) -> WhenStopped:
    """The text as a choice of what becomes of the runs. UserError otherwise."""
    if text not in get_args(WhenStopped):
        raise UserError("when_stopped", text, "is not known", f"choose one of {', '.join(get_args(WhenStopped))}")
    return cast("WhenStopped", text)


def write_package(folder: Path, package: Package) -> None:
    """Write a package into an existing folder, with the files that its specs name read here and now. UserError for one that cannot be read."""
    requests = [request.with_content() for request in package.requests]
    (folder / BLOBS).mkdir()
    for digest, content in {digest: content for request in requests for digest, content in request.content.items()}.items():
        (folder / BLOBS / digest).write_bytes(content)
    document = {
        "version": __version__, "when_stopped": package.when_stopped, "json": package.json, "requests": [_written(request) for request in requests]
    }  # fmt: skip
    (folder / QUESTION).write_text(json.dumps(document), encoding="utf-8")


def read_package(folder: Path) -> Package:
    """The package in a folder. UserError if there is none, and if another version of raysp wrote it."""
    path = folder / QUESTION
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError("folder", str(folder), "holds no question", "send one with `raysp submit SPEC --address http://HEAD:8265`") from None
    if not isinstance(found, dict) or found.get("version") != __version__:
        sent = found.get("version") if isinstance(found, dict) else None
        raise UserError("raysp", sent, f"sent the question, but {__version__} is installed on the head", "install the same version in both places")
    content = {blob.name: blob.read_bytes() for blob in (folder / BLOBS).iterdir()}
    requests = tuple(_read(each, content) for each in found["requests"])
    return Package(requests, check_when_stopped(found["when_stopped"]), bool(found["json"]))


def _written(request: RunRequest) -> dict[str, Any]:
    kept = {"run_id": request.run_id, "set_name": request.set_name, "priority": request.priority, "content": sorted(request.content)}
    return {**kept, "spec": json.loads(spec_json(request.spec))}


def _read(each: dict[str, Any], content: dict[str, bytes]) -> RunRequest:
    own = {digest: content[digest] for digest in each["content"]}
    return RunRequest(run_spec(each["spec"]), each["run_id"], each["set_name"], each["priority"], own)
