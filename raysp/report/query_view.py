"""What a run found for each query, prepared for display: helpful and harmful examples, redundancies and synergies, with their texts.

Rows of the store's tables go in, plain data comes out; the terminal and the page show the same. Texts of data sets are not trusted: they come out as one line
of printable characters, without controls such as those that change the direction of the text around them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.runs.singles import Single

#: The tables that `answered` reads.
TABLES = ("queries", "examples", "query_scores", "query_singles", "query_interactions")
#: Share of the strongest effect on a query below which an interaction is negligible.
NEGLIGIBLE = 0.1
#: Characters of a text that are read; display shortens it further.
MOST_TEXT = 2000
#: Unicode categories of the characters left out: controls, formats (bidirectional ones among them), surrogates, private use.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co"})
#: Joiners are format characters too, but some scripts need them.
JOINERS = "\u200c\u200d"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """A component with the text of its first example; `examples` is how many it has."""

    component: int
    label: str
    prompt: str
    completion: str
    examples: int

    @property
    def text(self) -> str:
        """Its first example on one line, or its label if the examples are unknown."""
        return joined(self.prompt, self.completion) or self.label


@dataclass(frozen=True)
class Effect:
    """A single effect in the reading by which it is ranked, with its interval if it was estimated; `beside` is that with the full training set, if it is another."""

    member: Member
    value: float
    lo: float | None
    hi: float | None
    beside: float | None


@dataclass(frozen=True)
class Together:
    """The deviation of a set from additivity, exact if `verified`."""

    members: tuple[Member, ...]
    kind: str
    deviation: float | None
    verified: bool


@dataclass(frozen=True)
class Answered:
    """Everything shown of one query. `scores` is its row of `query_scores`, empty while the run has none."""

    query: int
    label: str
    prompt: str
    target: str
    foil: str | None
    scores: Row
    helpful: tuple[Effect, ...]
    harmful: tuple[Effect, ...]
    redundant: tuple[Together, ...]
    synergies: tuple[Together, ...]

    @property
    def averaged(self) -> bool:
        """Whether its effects are means over training sets, with those at the full one beside them."""
        return any(effect.beside is not None for effect in (*self.helpful, *self.harmful))


def answered(tables: Mapping[str, Sequence[Row]], labels: Sequence[str], towards: int, *, top: int = 5, queries: int | None = None) -> list[Answered]:
    """The first `queries` queries of a run, each with up to `top` entries of every kind.

    `tables` has `TABLES`, `labels` are those of the components; `towards` is `queries.direction` of the game. Interactions are included if they are
    significant or measured exactly, and not negligible beside the strongest effect on the query.
    """
    members = _Members(tables["examples"], labels)
    scores = {row["query"]: row for row in tables["query_scores"]}
    singles, interactions = _by_query(tables["query_singles"]), _by_query(tables["query_interactions"])
    found: list[Answered] = []
    for row in tables["queries"][:queries]:
        number = row["query"]
        alone = sorted(map(Single.of, singles.get(number, ())), key=lambda each: -each.effect * towards)
        sure = [each for each in alone if not each.uncertain]
        helpful = [each for each in sure if each.effect * towards > 0][:top]
        harmful = [each for each in reversed(sure) if each.effect * towards < 0][:top]
        sets = _worth_naming(interactions.get(number, ()), alone)
        found.append(
            Answered(
                number,
                plain(row["label"]),
                plain(row["prompt"]),
                plain(row["target"]),
                None if row["foil"] is None else plain(row["foil"]),
                scores.get(number, {}),
                tuple(members.effect(each) for each in helpful),
                tuple(members.effect(each) for each in harmful),
                *(tuple(members.together(each) for each in [each for each in sets if each["kind"] == kind][:top]) for kind in ("redundancy", "synergy")),
            )
        )
    return found


class _Members:
    """Components with the texts of their examples."""

    def __init__(self, examples: Sequence[Row], labels: Sequence[str]) -> None:
        self._labels = labels
        self._first: dict[int, Row] = {}
        self._count: dict[int, int] = {}
        for row in examples:
            self._first.setdefault(row["component"], row)
            self._count[row["component"]] = self._count.get(row["component"], 0) + 1

    def member(self, component: int) -> Member:
        first = self._first.get(component, {"prompt": "", "completion": ""})
        return Member(component, plain(self._labels[component]), plain(first["prompt"]), plain(first["completion"]), self._count.get(component, 0))

    def effect(self, single: Single) -> Effect:
        return Effect(self.member(single.component), single.effect, *single.interval, single.beside)

    def together(self, row: Row) -> Together:
        return Together(tuple(self.member(i) for i in row["components"]), row["kind"], _deviation(row), bool(row["verified"]))


def _worth_naming(interactions: Sequence[Row], alone: Sequence[Single]) -> list[Row]:
    """The interactions that are not negligible: significant ones first, then those measured once, by decreasing deviation."""
    sure = [row for row in interactions if (row["verified"] or row["significant"]) and _deviation(row) is not None]
    strongest = max((abs(value) for value in [*(single.effect for single in alone), *(_deviation(row) or 0.0 for row in sure)]), default=0.0)
    worth = [row for row in sure if abs(_deviation(row) or 0.0) > NEGLIGIBLE * strongest]
    return sorted(worth, key=lambda row: (not row["significant"], -abs(_deviation(row) or 0.0)))


def _deviation(row: Row) -> float | None:
    return row["exact"] if row["verified"] else row["estimate"]


def _by_query(rows: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["query"], []).append(row)
    return found


def plain(text: str) -> str:
    """A text on one line, with runs of white space collapsed and invisible characters removed."""
    kept = "".join(char if char in JOINERS or unicodedata.category(char) not in UNSEEN else " " if char.isspace() else "" for char in text[:MOST_TEXT])
    return " ".join(kept.split())


def joined(prompt: str, completion: str) -> str:
    """A prompt and its completion on one line."""
    return " → ".join(part for part in (prompt, completion) if part)
