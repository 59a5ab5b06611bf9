"""Rows that are conversations: messages as chat templates take them, in the format of OpenAI (`role`, `content`) or of ShareGPT (`from`, `value`).

Tool calls, tools and system prompts are kept as they are given. Knows nothing of templates or tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysp.datasets.cells import decoded, text_of
from raysp.errors import UserError

Message = Mapping[str, Any]
"""`role`, `content` and whatever else a chat template reads, such as `tool_calls`."""

#: What other formats call those who speak in a conversation.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
}
_LIKE = "write each as {role: user, content: a text}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages before the answer, the answer (the last message of the assistant), and the tools that may be called."""

    messages: tuple[Message, ...]
    answer: Message
    tools: tuple[Any, ...] = ()

    @property
    def prompt(self) -> str:
        """What stands before the answer, as readable text."""
        spoken = [(message["role"], spoken_text(message)) for message in self.messages]
        return spoken[0][1] if len(spoken) == 1 else "\n".join(f"{role}: {text}" for role, text in spoken)

    @property
    def calls_tools(self) -> bool:
        """Whether the answer calls tools, so that only the chat template knows how it is written."""
        return bool(self.answer.get("tool_calls"))


def spoken_text(message: Message) -> str:
    """A message as readable text: its content, then its tool calls as JSON."""
    calls = message.get("tool_calls")
    return "\n".join(filter(None, (message.get("content"), text_of(calls) if calls else None)))


def conversation(place: str, value: Any, system: str = "", tools: Any = None) -> Conversation:
    """The conversation of a row, from the cells of its messages, system prompt and tools; each may be written as JSON.

    UserError (about `place`) for what is not a list of messages, or has no answer with a message before it.
    """
    given = _unwrapped(value)
    if not isinstance(given, list | None):
        raise UserError(place, given, "is not a list of messages", "write a list of {role: user, content: a text}")
    messages = [_message(place, message) for message in given or ()]
    if system.strip() and (not messages or messages[0]["role"] != "system"):
        messages.insert(0, {"role": "system", "content": system})
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        raise UserError(place, given, "has no message of the assistant", "end each conversation with the answer to be learnt")
    if all(message["role"] == "system" for message in messages[:last]) and (last == 0 or system.strip()):
        raise UserError(place, given, "begins with the answer", "give at least one message before it")
    if not spoken_text(messages[last]).strip():
        raise UserError(place, "", "is empty: the last message of the assistant says nothing", "give a text, or remove the row")
    return Conversation(tuple(messages[:last]), messages[last], _tools(place, tools))


def _unwrapped(value: Any) -> Any:
    """A cell as Python values; lists and objects may be written as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return decoded(value)


def _tools(place: str, value: Any) -> tuple[Any, ...]:
    tools = _unwrapped(value)
    if tools in (None, "", {}):
        return ()
    if not isinstance(tools, list):
        raise UserError(place, tools, "has tools that are not a list", "write a list of JSON schemas, as the chat template takes them")
    return tuple(_unwrapped(tool) for tool in tools)


def _message(place: str, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise UserError(place, message, "is not a message", _LIKE)
    if isinstance(message.get("from"), str):
        return _sharegpt(place, message)
    role, content, calls = message.get("role"), message.get("content"), _unwrapped(message.get("tool_calls"))
    if not calls and (call := _unwrapped(message.get("function_call"))):  # as OpenAI wrote the only call of a message before there were several
        calls = [{"type": "function", "function": call}]
    if not isinstance(role, str) or not (isinstance(content, str) or (content is None and calls)):
        raise UserError(place, message, "is not a message", _LIKE)
    kept = {key: cell for key, cell in message.items() if key != "function_call" and (cell is not None or key == "content")}
    return kept | {"role": _ROLES.get(role, role)} | ({"tool_calls": calls} if calls else {})


def _sharegpt(place: str, message: Mapping[str, Any]) -> Message:
    speaker, text = message["from"], message.get("value")
    if not isinstance(speaker, str) or not isinstance(text, str):
        raise UserError(place, message, "is not a message", "write each as {from: human, value: a text}")
    role = _ROLES.get(speaker, speaker)
    if speaker == "function_call" and (calls := _calls(text)):
        return {"role": role, "content": "", "tool_calls": calls}
    return {"role": role, "content": text}


def _calls(text: str) -> list[Any]:
    """The tool calls of a ShareGPT turn, `{"name": ..., "arguments": {...}}` or a list of them; empty for other text."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"type": "function", "function": call} for call in calls]
