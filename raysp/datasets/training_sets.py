"""Training examples and queries as texts: three shapes of rows, columns found by name, queries given or drawn. Knows nothing of tokens.

Errors name the row, from 1, in the data set that it came from.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raysp.datasets.cells import SCALARS, checked_text, text_of
from raysp.datasets.conversations import Message, conversation, spoken_text
from raysp.datasets.rows import Rows
from raysp.datasets.sources import open_rows
from raysp.errors import UserError
from raysp.specs.lenses import DataLens

#: Usual names of columns by role, the most specific first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction", "input"),
    "completion": ("completion", "answer", "response", "output"),
    "messages": ("messages", "conversations"),
    "text": ("text", "sentence", "review"),
    "label": ("label", "category", "target"),
    "foil": ("foil",),
    "context": ("input", "context"),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
}
#: Roles that together make a row an example, in the order in which they are looked for.
SHAPES = (("messages",), ("prompt", "completion"), ("text", "label"))
#: Further roles that an example of each shape may have.
OPTIONAL: Mapping[str, tuple[str, ...]] = {"messages": ("system", "tools", "foil"), "prompt": ("context", "system", "foil"), "text": ("foil",)}
#: Columns that usually belong to a prompt; a note names those that are not used.
PROMPTING = (*NAMES["prompt"], *NAMES["completion"], *NAMES["messages"], *NAMES["context"], *NAMES["system"], *NAMES["tools"], "history", "images", "documents")
#: Queries drawn if neither queries nor a number of them are given.
DRAWN = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """A training example or a query as it was written, without template or chat markup.

    `label` is that of text/label data, where it is the completion as well. `extra` is the whole row by column (None where it has no cell), `row` its number
    (from 1) in its data set. `system` is the system prompt of a single prompt. Of a conversation, `messages` stand before the completion (`prompt` is the same
    as readable text), `tools` may be called, and `answer` is the whole last message if it calls tools: only the chat template knows how that is written.
    """

    prompt: str
    completion: str
    foil: str | None = None
    label: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    row: int = 0
    system: str = ""
    tools: tuple[Any, ...] = ()
    answer: Message | None = None


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Samples in the order of their rows, from a data set of `rows` rows. `labels` are the distinct labels of text/label data, sorted; empty for other data."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: int = 0


def read_training_set(lens: DataLens) -> tuple[TrainingSet, TrainingSet]:
    """The training examples and the queries of a lens. UserError for data that cannot be read, unsuitable columns or rows, or too few examples.

    Without `queries`, `query_count` examples (8 by default) are drawn with `training_seed`, as evenly as possible over labels or groups, and removed from the
    training set. With `queries`, all of them are asked, or at most `query_count` drawn from them. Finally at most `limit` training examples are drawn.
    """
    if not lens.train:
        raise UserError("train", lens.train, "is missing", "give a training set: a file, a hub name or corpus:chatterbot")
    columns = parse_columns(lens.columns)
    source = _Source.open("train", lens.train, columns)
    rng = np.random.default_rng([lens.training_seed, 1])
    if lens.queries is None:
        chosen = _drawn_queries(source, lens, rng)
        rest = np.setdiff1d(np.arange(source.count), chosen)
        of_queries, notes = source, (f"{len(chosen)} queries are drawn from the training set and removed from it",)
    else:
        of_queries, notes = _Source.open("queries", lens.queries, columns), ()
        rest = np.arange(source.count)
        count = min(lens.query_count or of_queries.count, of_queries.count)
        chosen = np.arange(of_queries.count) if count == of_queries.count else _spread(of_queries.strata(lens.group_by), count, rng)
        if count < of_queries.count:
            notes = (f"{count} of {of_queries.count} queries are drawn",)
    total = len(rest)
    if lens.limit is not None and lens.limit < total:
        rest = np.sort(rng.choice(rest, lens.limit, replace=False))
    training, queries = tuple(source.samples(rest)), tuple(of_queries.samples(chosen, foils=True))
    if len(training) < 2:
        raise UserError("train", lens.train, f"has {len(training)} example", "give at least two")
    drawn = (f"{len(rest)} of {total} training examples are drawn",) if len(rest) < total else ()
    labels = tuple(sorted({sample.label for sample in training if sample.label is not None}))
    if len(labels) == 1:
        raise UserError("train", lens.train, f"has only one label, {labels[0]!r}", "give examples of at least two labels")
    warnings = (*_unknown_labels(queries, labels), *_known_queries(training, queries))
    known = tuple(sorted({*labels, *(query.label for query in queries if query.label is not None)}))
    query_notes = (*(of_queries.notes(chat=lens.chat) if of_queries is not source else ()), *notes)
    return TrainingSet(training, labels, (*source.notes(chat=lens.chat), *drawn), rows=source.count), TrainingSet(
        queries, known, query_notes, warnings, of_queries.count
    )


def parse_columns(text: str | None) -> dict[str, str]:
    """The column of each role in a text such as `prompt=question,completion=answer`. UserError for any other text."""
    found: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        role, sign, column = (piece.strip() for piece in part.partition("="))
        if not sign or not column or role not in NAMES:
            raise UserError(
                "columns", text, f"has {part.strip()!r}, which is not a role and its column", f"write ROLE=COLUMN with one of the roles {', '.join(NAMES)}"
            )
        found[role] = column
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """A data set, where it came from, and the column of each role that its rows have."""

    field: str
    name: str
    rows: Rows
    roles: Mapping[str, str]

    @classmethod
    def open(cls, field: str, name: str, columns: Mapping[str, str]) -> "_Source":
        rows = open_rows(field, name)
        roles = _roles(field, name, rows, columns)
        for role, column in roles.items():
            if role != "foil":  # which only queries use
                rows.check(field, column)
        return cls(field, name, rows, roles)

    @property
    def count(self) -> int:
        return len(self.rows)

    def strata(self, group_by: str | None) -> list[Any]:
        """The stratum of each row: its value of the grouping column, or its label; None for every row if there are neither."""
        column = group_by if group_by in self.rows.names else self.roles.get("label") if "text" in self.roles else None
        return [text_of(cell) for cell in self.rows.cells(column)] if column else [None] * self.count

    def notes(self, *, chat: bool) -> tuple[str, ...]:
        """How the columns were read, unless their names say so, and which columns that usually belong to a prompt are not used."""
        used = {role: column for role, column in self.roles.items() if role != "system" or chat or "messages" in self.roles}
        unused = [] if "text" in used else [name for name in dict.fromkeys(PROMPTING) if name in self.rows.names and name not in used.values()]
        if not unused and "context" not in used and all(role == column for role, column in used.items()):
            return ()
        read = ", ".join(f"{role} is column {column}" for role, column in used.items())
        return (f"{self.field}: {read}{'; not used: ' if unused else ''}{', '.join(unused)}",)

    def samples(self, numbers: Any, *, foils: bool = False) -> Iterator[Sample]:
        """The samples of these rows (numbers from 0)."""
        if foils and "foil" in self.roles:
            self.rows.check(self.field, self.roles["foil"])
        for number, row in zip(numbers.tolist(), self.rows.take(numbers.tolist()), strict=True):
            yield self._sample(number + 1, {name: row.get(name) for name in self.rows.names}, foils=foils)

    def _sample(self, number: int, row: Mapping[str, Any], *, foils: bool) -> Sample:
        foil = self._text(number, "foil", row) if foils and "foil" in self.roles else ""
        rest: dict[str, Any] = {"foil": foil if foil.strip() else None, "extra": row, "row": number}
        if "messages" in self.roles:
            place = self._place(number, "messages")
            talk = conversation(place, row[self.roles["messages"]], self._text(number, "system", row), row.get(self.roles.get("tools", "")))
            answer = talk.answer if talk.calls_tools else None
            return Sample(talk.prompt, spoken_text(talk.answer), messages=talk.messages, tools=talk.tools, answer=answer, **rest)
        if "text" in self.roles:
            label = self._text(number, "label", row).strip()
            self._check_full(number, "label", label)
            return Sample(self._text(number, "text", row), label, label=label, **rest)
        completion = self._text(number, "completion", row)
        self._check_full(number, "completion", completion)
        prompt = "\n\n".join(filter(None, (self._text(number, "prompt", row), self._text(number, "context", row))))
        return Sample(prompt, completion, system=self._text(number, "system", row), **rest)

    def _text(self, number: int, role: str, row: Mapping[str, Any]) -> str:
        """The text of a role; empty if the rows do not have it."""
        if role not in self.roles:
            return ""
        return checked_text(self._place(number, role), row[self.roles[role]])

    def _check_full(self, number: int, role: str, text: str) -> None:
        if not text.strip():
            raise UserError(self._place(number, role), text, "is empty", "give a text, or remove the row")

    def _place(self, number: int, role: str) -> str:
        return f"{self.field} row {number}, {self.roles[role]}"


def _roles(field: str, name: str, rows: Rows, columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each role of the first shape whose roles are all there. Shapes with a role in the map take precedence.

    Columns that are empty in more than half of the rows are considered only if no shape is complete without them.
    """
    existing = rows.names
    shown = ", ".join(filter(None, existing))
    for role, column in columns.items():
        if column not in existing and (role != "foil" or field == "queries"):
            raise UserError("columns", f"{role}={column}", f"names a column that {field} does not have", f"its columns are {shown}")
    usual = [column for column in existing if 2 * rows.column(column).filled >= len(rows)]
    named = [shape for shape in SHAPES if any(role in columns for role in shape)]
    for candidates in (usual, existing):
        found = _found(candidates, rows, columns)
        for shape in named or SHAPES:
            if all(role in found for role in shape):
                return {role: found[role] for role in (*shape, *OPTIONAL[shape[0]]) if role in found}
    begun = next((shape for shape in named or SHAPES if any(role in found for role in shape)), None)
    lacking = " and ".join(role for role in begun if role not in found) if begun else "prompt and completion, messages, or text and label"
    example = ",".join(f"{role}={existing[0]}" for role in begun if role not in found) if begun else f"prompt={existing[0]},completion=..."
    raise UserError(field, name, f"has no column for {lacking}", f"its columns are {shown}; name them with columns, such as {example}")


def _found(candidates: Sequence[str], rows: Rows, columns: Mapping[str, str]) -> dict[str, str]:
    """A column for each role: the one that the map names, otherwise the first usual name among the candidates, or among all columns for an optional role.

    A map that names the column of the prompt must also name that of its context.
    """
    optional = {role for roles in OPTIONAL.values() for role in roles}
    found: dict[str, str] = {}
    for role, names in NAMES.items():
        free = rows.names if role in optional else candidates
        known = (name for name in names if name in free and not (role == "context" and (name == found.get("prompt") or "prompt" in columns)))
        column = columns.get(role) or next(known, None)
        if column in rows.names and (role not in ("context", "system") or rows.column(column).kind in SCALARS):
            found[role] = column
    return found


def _drawn_queries(source: _Source, lens: DataLens, rng: np.random.Generator) -> Any:
    count = lens.query_count or min(DRAWN, max(1, source.count // 4))
    if source.count - count < 2:
        field, given = ("query_count", lens.query_count) if lens.query_count else ("train", lens.train)
        raise UserError(
            field, given, f"leaves {max(source.count - count, 0)} of {source.count} examples to train on", "give more examples, or a file of queries"
        )
    return _spread(source.strata(lens.group_by), count, rng)


def _spread(strata: Sequence[Any], count: int, rng: np.random.Generator) -> Any:
    """Ascending numbers of `count` rows, int64, taken from the strata in turn; no stratum gives more than half of its rows before all others have given half."""
    places: dict[Any, list[int]] = {}
    shuffled = rng.permutation(len(strata))
    for number in shuffled.tolist():
        places.setdefault(strata[number], []).append(number)
    turns = [(turn >= (len(mine) + 1) // 2, turn, number) for mine in places.values() for turn, number in enumerate(mine)]
    # Sorting is stable: within a turn, strata come in the order in which they were drawn.
    return np.sort(np.array([number for _, _, number in sorted(turns, key=lambda each: each[:2])[:count]], np.int64))


def _unknown_labels(queries: Sequence[Sample], labels: Sequence[str]) -> Iterator[str]:
    unknown = sorted({query.label for query in queries if query.label is not None} - set(labels))
    if unknown and labels:
        yield f"queries have labels that no training example has ({', '.join(unknown)}); the labels of the training set are {', '.join(labels)}"


def _known_queries(training: Sequence[Sample], queries: Sequence[Sample]) -> Iterator[str]:
    known = {_content(sample): sample.row for sample in reversed(training)}
    found = [(query.row, known[_content(query)]) for query in queries if _content(query) in known]
    if found:
        shown = ", ".join(f"query row {query} is row {row}" for query, row in found[:3]) + (", ..." if len(found) > 3 else "")
        yield f"{len(found)} of {len(queries)} queries are also in the training set ({shown}); those rows will probably have the largest effects"


def _content(sample: Sample) -> tuple[str, ...]:
    prompt = json.dumps([*sample.messages, *sample.tools], sort_keys=True, default=str) if sample.messages else sample.prompt.strip()
    return (prompt, sample.system.strip(), sample.completion.strip())
