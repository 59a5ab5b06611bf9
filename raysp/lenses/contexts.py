"""What the model reads under each mask: the ablated prompt in its frame, as symbols at positions.

Words and longer units are removed or replaced in the text, which is then tokenised as a whole, because tokenising pieces and joining
their ids gives other tokens than typing the text would. Every other ablation changes tokens of one full tokenisation, in which a token
belongs to the component that covers its first non-blank character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysp.errors import UserError
from raysp.lenses.continuation import Continuation, continuations, never_empty, without_end
from raysp.lenses.framing import Frame
from raysp.lenses.segmentation import Segmentation, Span
from raysp.masks import Masks
from raysp.models.inputs import Integers
from raysp.models.loading import following
from raysp.models.resident import ResidentModel
from raysp.specs.lenses import FeatureLens

Context = tuple[Integers, Integers, int]
"""Symbols, their positions, and the position of what follows."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A tokenizer as raysp uses it: its own special tokens around whole inputs, none around targets, and never an empty input."""

    model: ResidentModel
    special: bool

    def ids(self, texts: Sequence[str]) -> list[Integers]:
        """Token ids of whole inputs, as `whole`."""
        return [self.whole(ids) for ids in self._encode(texts)["input_ids"]]

    def whole(self, ids: Sequence[int] | Integers) -> Integers:
        """Ids that an answer can follow: without the end-of-sequence token that a causal model's tokenizer may add, and never empty."""
        return self.never_empty(without_end(self.model.loaded, ids) if self.special else ids)

    def never_empty(self, ids: Sequence[int] | Integers) -> Integers:
        """Ids as int64; where there are none, the token that begins (else ends) a text."""
        return never_empty(self.model.loaded, ids)

    def continuation(self, text: str, answers: Sequence[str]) -> Continuation:
        """A whole input and the answers that follow it."""
        return continuations(self.model.loaded, [text], [answers], special=self.special)[0]

    def with_offsets(self, text: str) -> tuple[Integers, NDArray[np.int64]]:
        """Token ids of one input, and the characters each covers, `(k, 2)`. Raises UserError for a tokenizer without offsets."""
        if not self.model.loaded.tokenizer.is_fast:
            raise UserError("ablation", None, "needs the characters that each token covers, which this tokenizer does not provide", "use ablation remove")
        encoded = self._encode([text], return_offsets_mapping=True)
        ids = self.whole(encoded["input_ids"][0])
        offsets = np.array(encoded["offset_mapping"][0], np.int64).reshape(-1, 2)[: len(ids)]
        return ids, offsets

    def plain(self, text: str) -> list[int]:
        """Token ids of a text that follows another: no special tokens added."""
        return following(self.model.loaded.tokenizer, text)

    def _encode(self, texts: Sequence[str], **options: Any) -> Any:
        return self.model.loaded.tokenizer(list(texts), add_special_tokens=self.special, return_attention_mask=False, verbose=False, **options)


@dataclass(frozen=True, slots=True)
class TextContexts:
    """Components removed from the text, or replaced in it."""

    reader: Reader
    frame: Frame
    segmentation: Segmentation
    replacement: str | None

    def contexts(self, masks: Masks) -> list[Context]:
        """The context of each mask (bool, `(m, n)`); equal texts are tokenised once."""
        texts = [self.frame.text(body) for body in self.segmentation.without(masks, self.replacement)]
        distinct = list(dict.fromkeys(texts))
        read = dict(zip(distinct, self.reader.ids(distinct), strict=True)) if distinct else {}
        return [(ids, np.arange(len(ids)), len(ids)) for ids in (read[text] for text in texts)]

    @property
    def text(self) -> str:
        """The text of the input with nothing removed."""
        return self.frame.text(self.segmentation.whole()[0])

    def owners(self) -> tuple[Integers, Integers]:
        """The tokens of the input with nothing removed, and the component of each (-1: fixed), int64 `(k,)`. UserError as `Reader.with_offsets`."""
        body, spans = self.segmentation.whole()
        text, begins = self.frame.text(body), self.frame.start(body)
        ids, offsets = self.reader.with_offsets(text)
        return ids, token_owners(text, offsets, [(start + begins, stop + begins) for start, stop in spans])


@dataclass(frozen=True, slots=True)
class TokenContexts:
    """Components changed token by token in the full tokenisation `ids`, `owner` naming the component of each token (-1: fixed).

    `text` is what was tokenised, `ablation` that of the lens; `substitute` are the ids that stand for a removed token, one for `mask`, `zero` and `mean`.
    """

    reader: Reader
    text: str
    ids: Integers
    owner: Integers
    ablation: str
    substitute: Integers

    def contexts(self, masks: Masks) -> list[Context]:
        """The context of each mask (bool, `(m, n)`)."""
        # An extra column, always kept, is what fixed tokens look at.
        kept = np.concatenate([masks, np.ones((len(masks), 1), np.bool_)], axis=1)[:, self.owner]
        return [self._context(row) for row in kept]

    def owners(self) -> tuple[Integers, Integers]:
        """The tokens of the input with nothing removed, and the component of each (-1: fixed), int64 `(k,)`."""
        return self.ids, self.owner

    def _context(self, kept: NDArray[np.bool_]) -> Context:
        length = len(self.ids)
        if self.ablation == "attention":
            positions = np.flatnonzero(kept)
            if not len(positions):
                return self._sequence(self.reader.never_empty([]))
            return self.ids[positions], positions, length
        if self.ablation == "remove":
            return self._sequence(self.reader.never_empty(self.ids[kept]))
        if len(self.substitute) == 1:
            return self._sequence(np.where(kept, self.ids, self.substitute[0]))
        parts = [[token] if keep else self.substitute for token, keep in zip(self.ids, kept, strict=True)]
        return self._sequence(self.reader.never_empty(np.concatenate(parts)))

    @staticmethod
    def _sequence(ids: Integers) -> Context:
        return ids, np.arange(len(ids)), len(ids)


def token_owners(text: str, offsets: NDArray[np.int64], spans: Sequence[Span]) -> Integers:
    """The span that covers each token's first non-blank character, -1 if none does; int64 `(k,)`."""
    owners = np.full(len(offsets), -1, np.int64)
    starts = np.array([start for start, _ in spans])
    for i, (start, stop) in enumerate(offsets.tolist()):
        piece = text[start:stop]
        if not piece.strip():
            continue
        first = start + len(piece) - len(piece.lstrip())
        candidate = int(np.searchsorted(starts, first, side="right")) - 1
        if candidate >= 0 and first < spans[candidate][1]:
            owners[i] = candidate
    return owners


def token_components(text: str, offsets: NDArray[np.int64], body: Span, *, whole_characters: bool = False) -> tuple[Integers, list[Span]]:
    """The tokens of the prompt, which are the components of unit `token`: the owner of every token, and each component's characters.

    A token belongs to the prompt if its first non-blank character does (any character, if all are blank); the blank before it may be the template's.
    With `whole_characters`, tokens that share a character are one component.
    """
    owners = np.full(len(offsets), -1, np.int64)
    spans: list[Span] = []
    for i, (start, stop) in enumerate(offsets.tolist()):
        piece = text[start:stop]
        first = start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        if start < stop and body[0] <= first < body[1]:
            owners[i] = len(spans)
            spans.append((max(start, body[0]), min(stop, body[1])))
    if not whole_characters:
        return owners, spans
    merged = chains(spans)
    chain_of = np.repeat(np.arange(len(merged)), [len(chain) for chain in merged])
    owners[owners >= 0] = chain_of[owners[owners >= 0]]
    return owners, [(spans[chain[0]][0], max(spans[number][1] for number in chain)) for chain in merged]


def chains(spans: Sequence[Span]) -> list[list[int]]:
    """The numbers of spans, those that overlap together: tokens of bytes cover the same character."""
    found: list[list[int]] = []
    end = -1
    for number, (start, stop) in enumerate(spans):
        if start < end:
            found[-1].append(number)
        else:
            found.append([number])
        end = max(end, stop)
    return found


def substitute(lens: FeatureLens, reader: Reader) -> Integers:
    """The symbols that stand for a removed token. Raises UserError for an ablation that the model or the options do not support."""
    model = reader.model
    if lens.ablation == "mask":
        token = model.loaded.tokenizer.mask_token_id
        if token is None:
            raise UserError("ablation", lens.ablation, "needs a mask token, which this model's tokenizer lacks", "use ablation replace with a text, or remove")
        return np.array([token], np.int64)
    if lens.ablation == "replace":
        return np.array(reader.plain(lens.replacement or ""), np.int64)
    if lens.ablation == "attention" and model.loaded.task == "causal" and not model.takes_positions:
        raise UserError("ablation", lens.ablation, "needs a model that takes positions, which this one does not", "use ablation remove")
    symbols = {"zero": [model.zero_symbol], "mean": [model.mean_symbol]}
    return np.array(symbols.get(lens.ablation, []), np.int64)
