"""Training examples and queries as token ids: the prompt in its template or chat markup, followed by the answer.

The answer begins by the rule of `continuation`, as in the other lenses. If neither side has white space at the seam, a space is inserted,
except in a chat, where the answer is a message of its own. Training examples end with the end-of-sequence token; queries do not, because their value is about
the answer alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysp.datasets.conversations import Message
from raysp.datasets.training_sets import Sample
from raysp.errors import UserError
from raysp.lenses.chat import apply_chat_template, day_note
from raysp.lenses.continuation import Continuation, continuations
from raysp.models.frozen_prefix import Text
from raysp.models.inputs import Integers
from raysp.models.loading import LoadedModel
from raysp.specs.lenses import DataLens

_SLOT = "{prompt}"
#: A private-use character, which no chat template treats specially.
_MARK = "\ue000"
#: Values that depend on a query's own answer only.
_ALONE = ("logprob", "logprob_mean", "prob", "loss")


@dataclass(frozen=True, slots=True)
class Encoded:
    """The texts of training examples, in their order, and notes on how they were made."""

    texts: tuple[Text, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """The texts of one query: its answer, then its foil or the other labels as `answers` (as they were tokenised). `cut` states whether its prompt lost its beginning."""

    texts: tuple[Text, ...]
    answers: tuple[str, ...]
    cut: bool = False


def encode(loaded: LoadedModel, lens: DataLens, samples: Sequence[Sample]) -> Encoded:
    """The training examples. Raises UserError for a template, chat or length that the model does not support, and if no example keeps any of its prompt."""
    limit, notes = _limit(loaded, lens)
    end = loaded.tokenizer.eos_token_id
    ending = np.array([] if end is None else [end], np.int64)
    if end is None:
        notes = (*notes, "the tokenizer has no end-of-sequence token: examples end with their completion")
    split = _continuations(loaded, lens, samples, [[_completion(loaded, lens, sample)] for sample in samples])
    fitted = [_fit(loaded, each.prompt, [np.concatenate([each.answers[0], ending])], limit) for each in split]
    texts = tuple(texts[0] for texts, _ in fitted)
    cut = sum(was for _, was in fitted)
    bare = sum(text.first == 1 < len(each.prompt) for text, each in zip(texts, split, strict=True))
    if bare and bare == len(texts):
        raise UserError(
            "max_tokens",
            lens.max_tokens,
            "leaves nothing of any example's prompt",
            f"the longest example has {max(len(each.prompt) + len(each.answers[0]) for each in split)} tokens",
        )
    if cut:
        notes = (*notes, f"{cut} of {len(texts)} examples were cut to {limit} tokens")
    return Encoded(texts, (*notes, *_stated_day(loaded, lens, samples), *_dropped(loaded, lens, samples)))


def encode_query(loaded: LoadedModel, lens: DataLens, sample: Sample, labels: Sequence[str] = ()) -> EncodedQuery:
    """The texts of one query: its answer, then the other labels, or its foil where it has no label or the value is `margin`. Errors as `encode`.

    For values that depend on nothing else, the answer alone is returned.
    All share one prompt, cut so that the longest answer fits; UserError for a foil that is the answer.
    """
    limit, _ = _limit(loaded, lens)
    answers = [_completion(loaded, lens, sample), *(_answer(lens, sample, text) for text in _compared(lens, sample, labels))]
    split = _continuations(loaded, lens, [sample], [answers])[0]
    if any(np.array_equal(split.answers[0], other) for other in split.answers[1:]):
        raise UserError(f"queries row {sample.row}, foil", sample.foil, "is equal to the completion", "give another foil, or none")
    texts, cut = _fit(loaded, split.prompt, split.answers, limit)
    return EncodedQuery(texts, tuple(answers), cut)


def encode_queries(
    loaded: LoadedModel, lens: DataLens, samples: Sequence[Sample], labels: Sequence[str] = ()
) -> tuple[tuple[EncodedQuery, ...], tuple[str, ...]]:
    """The texts of every query, as `encode_query`, and notes on how they were made."""
    queries = tuple(encode_query(loaded, lens, sample, labels) for sample in samples)
    cut = sum(query.cut for query in queries)
    notes = (f"{cut} of {len(queries)} queries were cut to {_limit(loaded, lens)[0]} tokens",) if cut else ()
    return queries, (*notes, *_dropped(loaded, lens, samples))


def _compared(lens: DataLens, sample: Sample, labels: Sequence[str]) -> list[str]:
    """The answers with which a query's own answer is compared."""
    if lens.value in _ALONE:
        return []
    if sample.label is not None and lens.value != "margin":
        return [label for label in labels if label != sample.label]
    return [] if sample.foil is None else [sample.foil]


def _limit(loaded: LoadedModel, lens: DataLens) -> tuple[int, tuple[str, ...]]:
    """The maximum length of an example in tokens, and a note if the model sets it."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    reads = next((value for name in names if (value := getattr(loaded.model.config.get_text_config(), name, None))), lens.max_tokens)
    return (lens.max_tokens, ()) if lens.max_tokens <= reads else (reads, (f"max_tokens is {reads}, the longest input of the model",))


def _continuations(loaded: LoadedModel, lens: DataLens, samples: Sequence[Sample], answers: Sequence[Sequence[str]]) -> list[Continuation]:
    """The prompt of each sample with its answers, tokenised. UserError for an answer without a token."""
    before, after = _template(lens)
    framed = [_chat(lens, sample, before + sample.prompt + after) for sample in samples]
    plain = np.array([isinstance(text, str) for text in framed], np.bool_)
    texts = [text if isinstance(text, str) else _render(loaded, lens, text, sample.tools) for text, sample in zip(framed, samples, strict=True)]
    found: dict[int, Continuation] = {}
    for special in (True, False):  # a chat template has its special tokens in its text
        numbers = np.flatnonzero(plain == special).tolist()
        split = continuations(loaded, [texts[number] for number in numbers], [answers[number] for number in numbers], special=special)
        found |= dict(zip(numbers, split, strict=True))
    for number, each in found.items():
        for answer, ids in zip(answers[number], each.answers, strict=True):
            if not len(ids):
                raise UserError("completion", answer, "has no token of the model", "give a text that the model can write")
    return [found[number] for number in range(len(samples))]


def _template(lens: DataLens) -> tuple[str, str]:
    if lens.template.count(_SLOT) != 1:
        raise UserError("template", lens.template, "must have {prompt} in it, once", 'write for example "Question: {prompt}\\nAnswer:"')
    before, _, after = lens.template.partition(_SLOT)
    return before, after


def _chat(lens: DataLens, sample: Sample, filled: str) -> str | tuple[Message, ...]:
    """The prompt as text, or as the messages that the chat template takes."""
    if sample.messages:
        if lens.template != _SLOT:
            raise UserError(
                "template", lens.template, "is given, and these examples are conversations", "omit template, because the model's chat template is used"
            )
        return sample.messages
    system = [{"role": "system", "content": sample.system}] if sample.system.strip() else []
    return (*system, {"role": "user", "content": filled}) if lens.chat else filled


def _render(loaded: LoadedModel, lens: DataLens, messages: Sequence[Message], tools: Sequence[Any] = (), *, prompting: bool = True) -> str:
    """Apply the chat template to messages and tools, ready for an answer if `prompting`."""
    if not loaded.tokenizer.chat_template:
        raise UserError(
            "chat", None, "is needed, but the model's tokenizer has no chat template", "give prompts and completions, or name an instruction-tuned model"
        )
    try:
        given = apply_chat_template(loaded.tokenizer, messages, lens.date, tools=tools, prompting=prompting)
    except Exception as error:  # noqa: BLE001  templates may raise any exception
        given, problem = None, (str(error).strip().splitlines() or [type(error).__name__])[0]
    else:
        problem = ""
    if given is not None and all(message.get("content") is not None for message in messages):
        return given
    # Some templates do not support messages without content, and fail or write the word None.
    try:
        filled = [{**message, "content": message.get("content") or ""} for message in messages]
        emptied = apply_chat_template(loaded.tokenizer, filled, lens.date, tools=tools, prompting=prompting)
    except Exception:  # noqa: BLE001  as above
        raise UserError("messages", list(messages), f"do not fit the model's chat template ({problem})", "use the roles that it knows, in its order") from None
    return emptied if given is None or given.count("None") > emptied.count("None") else given


def _stated_day(loaded: LoadedModel, lens: DataLens, samples: Sequence[Sample]) -> tuple[str, ...]:
    """A note with the date that the chat template writes, taken from the first example that uses the template."""
    first = next((sample for sample in samples if lens.chat or sample.messages), None)
    if first is None:
        return ()
    return day_note(loaded.tokenizer, first.messages or ({"role": "user", "content": first.prompt},), lens.date, tools=first.tools)


def _dropped(loaded: LoadedModel, lens: DataLens, samples: Sequence[Sample]) -> tuple[str, ...]:
    """A note for each part of conversations that the chat template does not write, checked on the first example that has it."""
    notes: list[str] = []
    offering = next((sample for sample in samples if sample.tools), None)
    if offering is not None and _render(loaded, lens, offering.messages, offering.tools) == _render(loaded, lens, offering.messages):
        notes.append("not used: tools, which the model's chat template does not write")
    calling = next((sample for sample in samples if any(message.get("tool_calls") for message in sample.messages)), None)
    if calling is not None:
        silent = [{"content": "", **{key: cell for key, cell in message.items() if key != "tool_calls"}} for message in calling.messages]
        if _render(loaded, lens, calling.messages, calling.tools) == _render(loaded, lens, silent, calling.tools):
            notes.append("not used: tool_calls of messages, which the model's chat template does not write")
    return tuple(notes)


def _completion(loaded: LoadedModel, lens: DataLens, sample: Sample) -> str:
    """The answer to be learnt or asked about; if it calls tools, as the chat template writes it, without the end of the turn."""
    if sample.answer is None:
        return _answer(lens, sample, sample.completion)
    prompt = _render(loaded, lens, sample.messages, sample.tools)
    whole, marked, silent = (
        _render(loaded, lens, [*sample.messages, message], sample.tools, prompting=False)
        for message in (sample.answer, {"role": "assistant", "content": _MARK}, {"role": "assistant", "content": sample.answer.get("content") or ""})
    )
    if not whole.startswith(prompt) or whole == silent:
        problem = "calls tools, which the model's chat template does not write" if whole == silent else "is not written after the prompt by the chat template"
        raise UserError(f"messages, row {sample.row}", sample.completion, problem, "use a model whose chat template does, or give the call as content")
    return whole[len(prompt) :].removesuffix(marked.partition(_MARK)[2])


def _answer(lens: DataLens, sample: Sample, text: str) -> str:
    """An answer with the space that separates it from the prompt."""
    before, after = _template(lens)
    prompt = before + sample.prompt + after
    separate = lens.chat or sample.messages or not prompt or prompt[-1:].isspace() or text[:1].isspace()
    return text if separate else " " + text


def _fit(loaded: LoadedModel, prompt: Integers, answers: Sequence[Integers], limit: int) -> tuple[tuple[Text, ...], bool]:
    """Prompt and answers in `limit` tokens, and whether anything had to go: the beginning of the prompt but for its first special token, then the answer's end."""
    room = max(1, limit - max(len(answer) for answer in answers))
    begins = room > 1 and len(prompt) > room and prompt[0] == loaded.tokenizer.bos_token_id
    kept = np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]]) if begins else prompt[-room:]
    texts = tuple(Text(np.concatenate([kept, answer[: limit - len(kept)]]), len(kept)) for answer in answers)
    return texts, len(kept) < len(prompt) or any(len(kept) + len(answer) > limit for answer in answers)
