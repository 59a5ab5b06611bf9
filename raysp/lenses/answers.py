"""Target and foil as tokens or classes, and the scalar value computed from their scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from raysp.errors import UserError
from raysp.lenses.contexts import Context, Reader
from raysp.lenses.continuation import Continuation, split
from raysp.masks import Values
from raysp.models.classes import head_of
from raysp.models.inputs import Floats, Inputs, Integers, Scores, gather
from raysp.specs.lenses import FeatureLens, FeatureValue

_SINGLE = ("logit", "logit_diff")
_FOIL = ("logit_diff", "logprob_diff")
_PROBABILITIES = ("logprob", "logprob_diff", "loss")
_CLASS_VALUES = ("class_logit", "logit", "logit_diff", "logprob", "logprob_diff", "loss")


@dataclass(frozen=True, slots=True)
class Answers:
    """Target and foil as texts and as token ids (for a classifier: labels, and one class index each), and the value of them.

    `merged` are the last tokens of the intact context that the answers' first tokens cover as well (see `Continuation`); a context that ends with them is read
    without them. `begins` is the token that takes the place of a context of which nothing is left.
    """

    task: Literal["causal", "classifier"]
    value: FeatureValue
    target: str
    target_ids: tuple[int, ...]
    foil: str | None
    foil_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()
    merged: tuple[int, ...] = ()
    begins: int = 0

    @property
    def needs_logprobs(self) -> bool:
        """Whether the value is made of log-probabilities."""
        return self.value not in ("logit", "logit_diff", "class_logit")

    @property
    def longest(self) -> int:
        """Number of tokens that follow a context so that every answer can be scored."""
        return 0 if self.task == "classifier" else max(len(self.target_ids), len(self.foil_ids)) - 1

    def inputs(self, contexts: list[Context]) -> Inputs:
        """Contexts followed by their answers, read where each token of an answer is predicted (teacher forcing).

        The readouts of one context are those of the target's tokens, then those of the foil's.
        """
        contexts = [self.before_answer(context) for context in contexts]
        answers = [np.array(ids, np.int64) for ids in (self.target_ids, self.foil_ids) if ids]
        if self.task == "classifier" or all(len(ids) == 1 for ids in answers):
            return self._at_once(contexts, np.concatenate(answers))
        return self._teacher_forced(contexts, answers)

    def before_answer(self, context: Context) -> Context:
        """A context up to where the answers begin: without `merged` at its end."""
        ids, positions, _ = context
        count = len(self.merged)
        if not count or tuple(ids[-count:].tolist()) != self.merged:
            return context
        if len(ids) == count:
            return np.array([self.begins], np.int64), np.zeros(1, np.int64), 1
        return ids[:-count], positions[:-count], int(positions[-count])

    @staticmethod
    def _at_once(contexts: list[Context], tokens: Integers) -> Inputs:
        reads = [(np.full(len(tokens), len(ids) - 1), tokens) for ids, _, _ in contexts]
        return gather([ids for ids, _, _ in contexts], [positions for _, positions, _ in contexts], reads)

    @staticmethod
    def _teacher_forced(contexts: list[Context], answers: list[Integers]) -> Inputs:
        rows = [(context, answer) for context in contexts for answer in answers]
        return gather(
            [np.concatenate([ids, answer[:-1]]) for (ids, _, _), answer in rows],
            [np.concatenate([positions, following + np.arange(len(answer) - 1)]) for (_, positions, following), answer in rows],
            [(len(ids) - 1 + np.arange(len(answer)), answer) for (ids, _, _), answer in rows],
        )

    @property
    def weights(self) -> Floats:
        """The weight of each readout of a context in its value, which is their weighted sum: float64 `(r,)`."""
        target = np.ones(len(self.target_ids))
        if self.value in ("loss", "logprob_mean"):
            target /= -len(target) if self.value == "loss" else len(target)
        return np.concatenate([target, np.full(len(self.foil_ids), -1.0)])

    def values(self, scores: Scores) -> Values:
        """The value of each context, float64 `(m,)`."""
        weights = self.weights
        scored = (scores.logprobs if self.needs_logprobs else scores.logits).reshape(-1, len(weights))
        return (scored * weights).sum(axis=1)


def answers(lens: FeatureLens, reader: Reader, intact: Context, text: str) -> Answers:
    """Target, foil and value of a lens; `intact` is the context with nothing removed and `text` what it was tokenised from.

    Raises UserError for answers that the model cannot give or the value cannot compare.
    """
    unused = lens.foil is not None and lens.value is not None and lens.value not in _FOIL
    used = lens.model_copy(update={"foil": None}) if unused else lens
    found = _class_answers(used, reader, intact) if reader.model.loaded.task == "classifier" else _token_answers(used, reader, intact, text)
    if found.foil_ids and found.foil_ids == found.target_ids:
        raise UserError("foil", lens.foil, "is equal to the target", "give another foil, or none")
    if found.value in _FOIL and not found.foil_ids:
        raise UserError("foil", None, f"is missing, and value {found.value} compares the target with it", "give a foil, or use value logit or logprob")
    return replace(found, notes=(*found.notes, f"the foil is not used by value {found.value}")) if unused else found


def _token_answers(lens: FeatureLens, reader: Reader, intact: Context, text: str) -> Answers:
    notes: list[str] = []
    if lens.value == "class_logit":
        raise UserError("value", lens.value, "is for sequence classifiers, and this is a causal language model", "use logit, logit_diff or logprob")
    for name, given in (("target", lens.target), ("foil", lens.foil)):
        if given is not None:
            _check_tokens(name, given, reader)
    if lens.target is None:
        target, answer = _greedy(lens, reader, intact)
        notes.append(f"the target is the model's own greedy answer: {target!r}")
    else:
        target, answer = lens.target, None
    found = _split(lens, reader, intact, text, answer)
    target_ids, foil_ids = (tuple(ids.tolist()) for ids in (*found.answers, np.zeros(0, np.int64))[:2])
    if not target_ids or (lens.foil is not None and not foil_ids):
        name, given = ("foil", lens.foil) if target_ids else ("target", target)
        raise UserError(name, given, "adds no token to the prompt", "give another text, or leave it out")
    single = len(target_ids) == 1 and len(foil_ids) <= 1
    value = lens.value or ("logprob" if not foil_ids else "logit_diff" if single else "logprob_diff")
    if value in _SINGLE:
        _check_single(lens, value, target_ids, foil_ids)
    notes += [note for name, given in (("target", lens.target), ("foil", lens.foil)) for note in _space_note(name, given, text, reader)]
    merged, begins = tuple(found.merged.tolist()), int(reader.never_empty([])[0])
    return Answers("causal", value, target, target_ids, lens.foil, foil_ids, tuple(notes), merged, begins)


def _split(lens: FeatureLens, reader: Reader, intact: Context, text: str, answer: Sequence[int] | None) -> Continuation:
    """The context and the answers to it; `answer` are the tokens of a target that the model gave itself."""
    if answer is None:
        return reader.continuation(text, [given for given in (lens.target, lens.foil) if given is not None])
    wholes = [np.append(intact[0], answer)]
    if lens.foil is not None:
        wholes.append(reader.ids([text + lens.foil])[0])
    return split(reader.model.loaded, intact[0], wholes)


def _check_single(lens: FeatureLens, value: str, target_ids: tuple[int, ...], foil_ids: tuple[int, ...]) -> None:
    instead = "logprob_diff" if value == "logit_diff" else "logprob"
    for name, text, ids in (("target", lens.target, target_ids), ("foil", lens.foil, foil_ids)):
        if len(ids) > 1:
            raise UserError(name, text, f"is {len(ids)} tokens of the model, and value {value} needs a single one", f"use value {instead}")


def _check_tokens(name: str, text: str, reader: Reader) -> None:
    ids = reader.plain(text)
    if not ids:
        raise UserError(name, text, "contains no token of the model", "give a text that has tokens, or leave it out")
    unknown = reader.model.loaded.tokenizer.unk_token_id
    literal = reader.model.loaded.tokenizer.unk_token
    if unknown is not None and unknown in ids and (literal is None or literal not in text):
        raise UserError(name, text, "contains characters that the model has no token for", "give a text that the model can write")


def _greedy(lens: FeatureLens, reader: Reader, intact: Context) -> tuple[str, tuple[int, ...]]:
    room = reader.model.context
    limit = lens.max_new_tokens if room is None else min(lens.max_new_tokens, room - len(intact[0]))
    ids = reader.model.answer(intact[0], limit)
    if not ids:
        raise UserError("target", None, "is missing, and the model's own answer is empty", "give a target")
    return str(reader.model.loaded.tokenizer.decode(ids)), tuple(ids)


def _space_note(name: str, text: str | None, ending: str, reader: Reader) -> list[str]:
    """A note where a leading space was probably intended, because models write words with the space before them."""
    if text is None or not text[:1].isalnum() or not ending or ending[-1].isspace():
        return []
    if len(reader.plain(" " + text)) > len(reader.plain(text)) or reader.plain(" " + text) == reader.plain(text):
        return []
    return [f"{name} {text!r} is taken as written; behind {ending[-12:]!r} a model is more likely to write {' ' + text!r}"]


def _class_answers(lens: FeatureLens, reader: Reader, intact: Context) -> Answers:
    if lens.value is not None and lens.value not in _CLASS_VALUES:
        raise UserError("value", lens.value, "is for causal language models, and this is a sequence classifier", "use class_logit or logprob")
    model: Any = reader.model.loaded.model
    head, labels = head_of(model), {int(index): str(label) for index, label in model.config.id2label.items()}
    if head == "regression" and lens.value in _PROBABILITIES:
        raise UserError("value", lens.value, "is made of probabilities, and the model's head is a regression, which has none", "use class_logit, its output")
    notes: tuple[str, ...] = ()
    if lens.target is None:
        if head == "regression" and len(labels) > 1:
            raise UserError("target", None, "is missing, and the model's head is a regression of several outputs", f"name one of {', '.join(labels.values())}")
        index = int(reader.model.class_logits(intact[0]).argmax())
        what = {"classes": "predicted class", "labels": "most probable label", "regression": "output of the regression"}[head]
        notes = (f"the target is the {what}: {labels[index]}",)
    else:
        index = _class("target", lens.target, labels)
    foil = None if lens.foil is None else _class("foil", lens.foil, labels)
    value = lens.value or ("class_logit" if foil is None else "logit_diff")
    foil_ids = () if foil is None else (foil,)
    return Answers("classifier", value, labels[index], (index,), None if foil is None else labels[foil], foil_ids, notes)


def check_head(value: str | None, has_foil: bool, model: Any) -> None:
    """UserError for a value of a prompt set that compares classes, where the outputs of a classifier's head do not exclude one another."""
    if value == "kl" or (value == "accuracy" and not has_foil):
        head = head_of(model)
        if head != "classes":
            what = "is a regression" if head == "regression" else "has independent labels"
            raise UserError("value", value, f"compares classes that exclude one another, and the model's head {what}", "use class_logit")


def _class(name: str, given: str, labels: dict[int, str]) -> int:
    """The index of a class: by its exact label, else by its label in any case, else by its index."""
    wanted = given.strip()
    for fold in (str.strip, _folded):
        found = [index for index, label in labels.items() if fold(label) == fold(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            meant = " and ".join(f"{labels[index]} ({index})" for index in found)
            raise UserError(name, given, f"is the label of {len(found)} classes, {meant}", "write the label exactly, or give the index of the class")
    if wanted.isdecimal() and int(wanted) in labels:
        return int(wanted)
    raise UserError(name, given, "is not a class of the model", f"use one of {', '.join(labels.values())}, or a class index")


def _folded(label: str) -> str:
    return label.strip().casefold()
