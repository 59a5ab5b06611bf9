"""What a question about a prompt would be about, before anything is measured: the pieces of the prompt, and what the model would say next."""

from typing import Any

import numpy as np

from raysp.game import Component
from raysp.lenses.contexts import Context, Reader
from raysp.lenses.feature import check_context, prompt_parts
from raysp.lenses.framing import frame
from raysp.lenses.segmentation import segment
from raysp.models.resident import ResidentModel, resident
from raysp.specs.lenses import FeatureLens
from raysp.specs.prompts import check_prompt

#: Tokens, or classes of a classifier, that are offered as target and foil.
OFFERED = 10


def preview(lens: FeatureLens) -> dict[str, Any]:
    """The prompt's components and the answers that the model finds most probable.

    `source` is the prompt, `components` have index, label, start and stop in it, `input` is the whole text that the model reads, and `answers` have text and
    probability, the most probable first: next tokens, or the classes of a classifier. UserError for what the prompt, the options or the model do not support.
    """
    segmentation = None if lens.unit == "token" else segment(lens)
    check_prompt(lens)
    model = resident(lens)
    framed = frame(lens, model.loaded.tokenizer)
    parts = prompt_parts(lens, Reader(model, framed.special), framed, segmentation)
    intact = parts.source.contexts(np.ones((1, parts.n), np.bool_))
    check_context(lens, model, intact, 1)
    return {
        "source": lens.prompt,
        "input": parts.text,
        "components": [_component(component) for component in parts.components],
        "answers": _answers(model, intact[0]),
        "model": lens.model,
        "notes": list(framed.notes),
    }


def _component(component: Component) -> dict[str, Any]:
    return {"index": component.index, "label": component.label, "start": component.start, "stop": component.stop}


def _answers(model: ResidentModel, intact: Context) -> list[dict[str, Any]]:
    if model.loaded.task == "classifier":
        logits = model.class_logits(intact[0])
        odds = np.exp(logits - logits.max())
        names: dict[int, str] = model.loaded.model.config.id2label
        order = np.argsort(-odds)[:OFFERED].tolist()
        return [{"text": names[number], "probability": float(odds[number] / odds.sum())} for number in order]
    tokenizer = model.loaded.tokenizer
    found = model.next_tokens(intact[0], min(OFFERED, model.vocabulary))
    return [{"text": str(tokenizer.decode([token])), "probability": probability} for token, probability in found]
