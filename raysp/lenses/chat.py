"""Chat templates. Some state the date (Llama 3, Granite): it is taken from the lens, as part of the question, so that runs on different days ask the same."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]
#: The function that templates call for the date, and the format codes that they may use.
CLOCK = "strftime_now"
_LETTERS = "aAbBcdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ"


def apply_chat_template(tokenizer: Any, messages: Messages, day: dt.date | None, *, tools: Sequence[Any] = (), prompting: bool = True) -> str:
    """Apply the tokenizer's chat template to messages and tools, ready for an answer if `prompting`; `day` is the date it states (None: today).

    Raises whatever the template raises.
    """
    template = tokenizer.get_chat_template(tools=list(tools) or None)
    dated = {"chat_template": _clock(day or _today()) + template} if CLOCK in template else {}
    spoken = [dict(message) for message in messages]
    return tokenizer.apply_chat_template(spoken, tools=list(tools) or None, tokenize=False, add_generation_prompt=prompting, **dated)


def _clock(day: dt.date) -> str:
    """A macro that replaces transformers' own clock, which always states today. Templates are given plain data only, no functions."""
    at = dt.datetime.combine(day, dt.time())
    formats = [f"%{flag}{letter}" for flag in ("-", "") for letter in _LETTERS]
    filters = "".join(f" | replace({json.dumps(each)}, {json.dumps(at.strftime(each))})" for each in formats)
    # The macro ends with a line break, so that blocks at the beginning of the template stay at the beginning of a line.
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}\n"


def day_note(tokenizer: Any, messages: Messages, day: dt.date | None, *, tools: Sequence[Any] = ()) -> tuple[str, ...]:
    """A note with the date that the chat template writes around these messages; none if it writes no date."""
    known = day or _today()
    there, before = (apply_chat_template(tokenizer, messages, each, tools=tools) for each in (known, known - dt.timedelta(days=400)))
    return () if there == before else (f"the model's chat template states the date: {known} (another with --date)",)


def _today() -> dt.date:
    return dt.datetime.now().astimezone().date()
