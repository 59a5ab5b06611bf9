"""Where an answer begins: the rule by which all lenses split a text into a prompt and the answers that follow it.

An answer consists of the tokens of the whole text (prompt and answer tokenised together) after the longest prefix that it shares with the tokens of the prompt alone.
Tokenising an answer by itself gives other tokens: SentencePiece tokenizers put a blank before every text, and a blank that ends a prompt often belongs to the
answer's first token. Several answers to one prompt share one beginning, the shortest of theirs, so that their scores have the same condition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysp.models.inputs import Integers
from raysp.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Continuation:
    """The tokens of a prompt up to where its answers begin, and of each answer, int64.

    `merged` are the last tokens of the prompt tokenised alone that the answers' first tokens cover as well; usually there are none.
    """

    prompt: Integers
    answers: tuple[Integers, ...]
    merged: Integers


def continuations(loaded: LoadedModel, prompts: Sequence[str], answers: Sequence[Sequence[str]], *, special: bool) -> list[Continuation]:
    """Each prompt with its answers, tokenised. `special` states whether the tokenizer adds its own special tokens around a text.

    An answer that adds no token to its prompt is returned empty.
    """
    texts = [*prompts, *(prompt + answer for prompt, each in zip(prompts, answers, strict=True) for answer in each)]
    if not texts:
        return []
    tokenised = loaded.tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
    following = iter(tokenised[len(prompts) :])
    found: list[Continuation] = []
    for alone, each in zip(tokenised[: len(prompts)], answers, strict=True):
        ended = special and ends_itself(loaded, alone)
        wholes = [next(following) for _ in each]
        found.append(split(loaded, without_end(loaded, alone) if ended else alone, [without_end(loaded, whole) if ended else whole for whole in wholes]))
    return found


def split(loaded: LoadedModel, prompt: Sequence[int] | Integers, wholes: Sequence[Sequence[int] | Integers]) -> Continuation:
    """The rule itself, on token ids of a prompt and of the whole texts that begin with it. An empty prompt becomes the token that begins a text."""
    alone, texts = np.asarray(prompt, np.int64), [np.asarray(whole, np.int64) for whole in wholes]
    start = min((_shared(alone, text) for text in texts), default=len(alone))
    return Continuation(never_empty(loaded, alone[:start]), tuple(text[start:] for text in texts), alone[start:])


def _shared(one: Integers, other: Integers) -> int:
    """The number of tokens with which both begin."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


def ends_itself(loaded: LoadedModel, ids: Sequence[int] | Integers) -> bool:
    """Whether a causal model's tokenizer put its end-of-sequence token behind these ids, which nothing could follow."""
    return loaded.task == "causal" and len(ids) > 1 and ids[-1] == loaded.tokenizer.eos_token_id


def without_end(loaded: LoadedModel, ids: Sequence[int] | Integers) -> Sequence[int] | Integers:
    """Ids without an end-of-sequence token at their end."""
    return ids[:-1] if ends_itself(loaded, ids) else ids


def never_empty(loaded: LoadedModel, ids: Sequence[int] | Integers) -> Integers:
    """Ids as int64; where there are none, the token that begins (else ends) a text."""
    array = np.asarray(ids, np.int64)
    if len(array):
        return array
    tokenizer = loaded.tokenizer
    begins = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return np.array([next(token for token in begins if token is not None)], np.int64)
