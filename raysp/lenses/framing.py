"""The fixed text around a prompt: template, question, chat template. Never ablated."""

import re
from dataclasses import dataclass
from typing import Any

from raysp.errors import UserError
from raysp.lenses.chat import apply_chat_template, day_note
from raysp.specs.lenses import FeatureLens

_FIELD = re.compile(r"\{(prompt|question)\}")
_MARK = "\ue000"  # a private-use character, which no chat template treats specially


@dataclass(frozen=True, slots=True)
class Frame:
    """The text before and after the prompt. `special` states whether the tokenizer adds its special tokens around the whole.

    A chat template has them in its text already, and may trim the message: `outer` is its text, `inner` that of the lens. `notes` are for the user.
    """

    inner: tuple[str, str]
    outer: tuple[str, str] = ("", "")
    trims: bool = False
    special: bool = True
    notes: tuple[str, ...] = ()

    def text(self, body: str) -> str:
        """The whole input for a prompt."""
        filled = self.inner[0] + body + self.inner[1]
        return self.outer[0] + (filled.strip() if self.trims else filled) + self.outer[1]

    def start(self, body: str) -> int:
        """The character at which the prompt begins in the whole input."""
        filled = self.inner[0] + body + self.inner[1]
        trimmed = len(filled) - len(filled.lstrip()) if self.trims else 0
        return len(self.outer[0]) + len(self.inner[0]) - trimmed


def frame(lens: FeatureLens, tokenizer: Any) -> Frame:
    """The frame of a lens. Raises UserError for a template without a place for the prompt, and for a chat if the tokenizer has no chat template."""
    inner = _fill(lens)
    if not lens.chat:
        return Frame(inner)
    if not tokenizer.chat_template:
        raise UserError("chat", lens.chat, "is asked for, but the model's tokenizer has no chat template", "leave chat out, or name an instruction-tuned model")
    before, _, after = _render(tokenizer, lens, _MARK).partition(_MARK)
    notes = day_note(tokenizer, _said(_MARK), lens.date)
    for trims in (False, True):
        framed = Frame(inner, (before, after), trims=trims, special=False, notes=notes)
        if all(framed.text(body) == _render(tokenizer, lens, inner[0] + body + inner[1]) for body in (lens.prompt, "")):
            return framed
    raise UserError("chat", lens.chat, "cannot be used: the model's chat template rewrites the message", "put the chat markup into template instead")


def _fill(lens: FeatureLens) -> tuple[str, str]:
    template = lens.template
    fields = _FIELD.findall(template)
    if fields.count("prompt") != 1:
        raise UserError("template", template, "must have {prompt} in it, once", 'write for example "Review: {prompt}\\nSentiment:"')
    if lens.question is not None and not lens.question.strip():
        raise UserError("question", lens.question, "is empty", "give a question, or leave it out")
    if "question" in fields and lens.question is None:
        raise UserError("question", None, "is missing, and the template has a place for it", "give a question, or take {question} out of the template")
    if "question" not in fields and lens.question is not None:
        template = template.replace("{prompt}", "{prompt}\n{question}")
    before, after = template.split("{prompt}")
    question = lens.question or ""
    return before.replace("{question}", question), after.replace("{question}", question)


def _render(tokenizer: Any, lens: FeatureLens, message: str) -> str:
    return apply_chat_template(tokenizer, _said(message), lens.date)


def _said(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]
