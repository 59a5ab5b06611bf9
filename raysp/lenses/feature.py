"""The feature lens: components are parts of a prompt, and the value is the model's preference for an answer."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raysp.errors import EvaluationError, UserError
from raysp.game import Component, Game, GameInfo, Measurement, distinct_labels, fingerprint
from raysp.gradients import GradientReport
from raysp.lenses.answers import Answers, answers
from raysp.lenses.contexts import Context, Reader, TextContexts, TokenContexts, chains, substitute, token_components, token_owners
from raysp.lenses.framing import Frame, frame
from raysp.lenses.input_gradients import AnsweredPrompt, AttentionGates, UnavailableError, gradient_report
from raysp.lenses.segmentation import Segmentation, segment
from raysp.lenses.self_check import pieces
from raysp.masks import Masks, check_masks
from raysp.models.classes import has_independent_labels
from raysp.models.inputs import Floats, Inputs, Integers
from raysp.models.packing import Root
from raysp.models.prefix_tree import build_tree, common_prefix
from raysp.models.resident import Method, ResidentModel, resident
from raysp.specs.lenses import FeatureLens
from raysp.specs.prompts import check_prompt

_REMEMBERED = 500_000
#: Random masks from which the cost of one is estimated.
SPREAD = 64


@dataclass
class FeatureGame(Game):
    """Masks over the parts of a prompt, scored by a resident model. Equal inputs have one value, which is computed once."""

    info: GameInfo
    model: ResidentModel = field(repr=False)
    parts: "Parts" = field(repr=False)
    answers: Answers
    method: Method
    root: Root = field(repr=False)
    _known: dict[bytes, float] = field(init=False, repr=False, default_factory=dict)
    _gates: AttentionGates | None = field(init=False, repr=False, default=None)

    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """Values (float64 `(m,)`), tokens that the model computed, and seconds. Raises EvaluationError for an input longer than the model's context."""
        self.check_slopes(slopes=slopes)
        began = time.perf_counter()
        contexts = self.parts.source.contexts(masks)
        names = [_name(context) for context in contexts]
        missing = {name: context for name, context in zip(names, contexts, strict=True) if name not in self._known}
        tokens, remark = self._score(missing) if missing else (0, None)
        values = np.array([self._known[name] for name in names], np.float64)
        self._forget()
        return Measurement(values, tokens, time.perf_counter() - began, notes=(remark,) if remark else ())

    def remeasure(self, masks: Masks) -> Measurement:
        """As `measure`, computed again."""
        for context in self.parts.source.contexts(masks):
            self._known.pop(_name(context), None)
        return self.measure(masks)

    @property
    def answered(self) -> AnsweredPrompt:
        """The prompt with its answer, for `input_gradients`."""
        return AnsweredPrompt(self.model, self.parts.source, self.answers, self.n)

    def compute_gradients(self, max_order: int) -> GradientReport:
        """Attention gates, and unless `max_order` is 0 gradient x input, integrated gradients and attention rollout, as far as the model supports them."""
        return gradient_report(self.answered, priors_only=max_order == 0)

    def gate_slopes(self, masks: Masks) -> Floats:
        """As `Game.gate_slopes`, in gates on attention (see `raysp.models.attention_gates`): a removed component is hidden there, whatever the ablation."""
        checked = check_masks(masks, self.n)
        try:
            self._gates = self._gates or AttentionGates.of(self.answered)
        except UnavailableError as error:
            raise ValueError(f"attention gates: {error}") from None
        return np.array([self._gates.at(mask) for mask in checked]).reshape(checked.shape)

    def _score(self, missing: dict[bytes, Context]) -> tuple[int, str | None]:
        """Score and remember the contexts; the tokens computed, and a remark if the model had to score them in a slower way than when the game was built."""
        self._check_length(list(missing.values()))
        inputs = self.answers.inputs(list(missing.values()))
        scores, self.method, remark = self.model.score_checked(inputs, self.method, self.root, logprobs=self.answers.needs_logprobs)
        self._known.update(zip(missing, self.answers.values(scores).tolist(), strict=True))
        return scores.tokens, remark

    def _check_length(self, contexts: list[Context]) -> None:
        limit, longest = self.model.context, max(following for _, _, following in contexts) + self.answers.longest
        if limit is not None and longest > limit:
            raise EvaluationError(f"an ablated prompt has {longest} tokens with its answer; the model reads {limit}")

    def _forget(self) -> None:
        for name in list(self._known)[: max(len(self._known) - _REMEMBERED, 0)]:
            del self._known[name]


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of a prompt, the source of their contexts, and the text of the input with nothing removed."""

    source: TextContexts | TokenContexts
    components: tuple[Component, ...]
    joiner: str | None
    text: str

    @property
    def n(self) -> int:
        """The number of components."""
        return len(self.components)


def build_feature_game(lens: FeatureLens) -> FeatureGame:
    """Load the model and prepare the game. Raises UserError for anything that the prompt, the options or the model do not support."""
    segmentation = None if lens.unit == "token" else segment(lens)
    check_prompt(lens)
    model = resident(lens)
    framed = frame(lens, model.loaded.tokenizer)
    reader = Reader(model, framed.special)
    parts = prompt_parts(lens, reader, framed, segmentation)
    ends = parts.source.contexts(np.array([[True] * parts.n, [False] * parts.n]))
    check_context(lens, model, ends, 0)
    wanted = answers(lens, reader, ends[0], parts.source.text)
    check_context(lens, model, ends, wanted.longest)
    few, spread = _samples(parts)
    method, remark = model.choose(wanted.inputs(pieces(few)))
    root = Root(common_prefix(wanted.inputs(few)))
    described = _described(lens, model, parts, wanted, ends[0])
    if wanted.needs_logprobs and has_independent_labels(model.loaded.model):
        described["labels"] = "independent"
    if wanted.merged:
        described["merged"] = list(wanted.merged)
    notes = (f"model {lens.model} in {model.place}, {method} scoring", *([remark] if remark else []), *framed.notes, *wanted.notes)
    batch = model.request_masks(_tokens_of_a_mask(wanted.inputs(spread), root.keys if method == "packed" else None))
    return FeatureGame(GameInfo(fingerprint(described), parts.components, described, notes, batch, lens.prompt), model, parts, wanted, method, root)


def prompt_parts(lens: FeatureLens, reader: Reader, framed: Frame, segmentation: Segmentation | None) -> Parts:
    """The components and their contexts. Character offsets are needed except to remove or replace words and longer units."""
    in_text = lens.ablation in ("remove", "replace") and segmentation is not None
    text, begins = framed.text(lens.prompt), framed.start(lens.prompt)
    if segmentation is not None and in_text and not reader.model.loaded.tokenizer.is_fast:
        source = TextContexts(reader, framed, segmentation, lens.replacement)
        return Parts(source, _described_components(segmentation, [len(reader.plain(piece)) for piece in segmentation.pieces]), segmentation.joiner, text)
    ids, offsets = reader.with_offsets(text)
    if segmentation is None:
        owner, spans = token_components(text, offsets, (begins, begins + len(lens.prompt)), whole_characters=lens.whole_characters)
        segmentation = Segmentation(lens.prompt, tuple((start - begins, stop - begins) for start, stop in spans), "token", None)
    else:
        owner = token_owners(text, offsets, [(start + begins, stop + begins) for start, stop in segmentation.spans])
    sizes = np.bincount(owner[owner >= 0], minlength=len(segmentation.spans)).tolist()
    if not in_text:
        _check_sizes(lens, segmentation, sizes)
    components = _described_components(segmentation, sizes)
    if in_text:
        return Parts(TextContexts(reader, framed, segmentation, lens.replacement), components, segmentation.joiner, text)
    return Parts(TokenContexts(reader, text, ids, owner, lens.ablation, substitute(lens, reader)), components, None, text)


def _check_sizes(lens: FeatureLens, segmentation: Segmentation, sizes: list[int]) -> None:
    if len(sizes) < 2:
        raise UserError("prompt", lens.prompt, f"has one component with unit {lens.unit}", "give a longer prompt")
    if 0 in sizes:
        piece = segmentation.pieces[sizes.index(0)]
        raise UserError(
            "ablation", lens.ablation, f"cannot tell {piece!r} from its neighbour: one token covers both", "use ablation remove, or larger components"
        )


def _described_components(segmentation: Segmentation, sizes: list[int]) -> tuple[Component, ...]:
    labels = distinct_labels(_labels(segmentation))
    pieces = zip(labels, segmentation.spans, sizes, strict=True)
    return tuple(Component(i, label, segmentation.kind, start, stop, max(size, 1)) for i, (label, (start, stop), size) in enumerate(pieces))


def _labels(segmentation: Segmentation) -> list[str]:
    """Each component's text on one line; of tokens that share a character, which part of it each is."""
    labels: list[str] = []
    pieces = segmentation.pieces
    for chain in chains(segmentation.spans):
        for part, number in enumerate(chain, 1):
            text = " ".join(pieces[number].split()) or repr(pieces[number])  # a component of blanks only is shown as Python writes it
            labels.append(text if len(chain) == 1 else f"{text} {part}/{len(chain)}")
    return labels


def check_context(lens: FeatureLens, model: ResidentModel, contexts: list[Context], answer: int) -> None:
    """UserError for contexts that, with so many tokens of an answer, are longer than what the model reads."""
    length = max(following for _, _, following in contexts) + max(answer, 0)
    if model.context is not None and length > model.context:
        problem = f"has {length} tokens with its template and answer, and the model reads {model.context}"
        raise UserError("prompt", lens.prompt, problem, "shorten the prompt, or use a model with a longer context")


def _samples(parts: Parts) -> tuple[list[Context], list[Context]]:
    """Contexts to check the scoring with (nothing, everything and every second component removed), and random ones to size requests by."""
    check = np.ones((3, parts.n), np.bool_)
    check[1], check[2, ::2] = False, False
    spread = np.random.default_rng(0).random((SPREAD, parts.n)) < 0.5
    return parts.source.contexts(check), parts.source.contexts(spread)


def _tokens_of_a_mask(spread: Inputs, known: Integers | None) -> float:
    """The mean number of tokens that a mask costs, over random masks; `known` are tokens that packed scoring has already computed."""
    return (len(build_tree(spread, known)) if known is not None else int(spread.lengths.sum())) / SPREAD


def _described(lens: FeatureLens, model: ResidentModel, parts: Parts, wanted: Answers, intact: Context) -> dict[str, Any]:
    """Everything that values depend on and nothing else: equal descriptions are one game."""
    return {
        "lens": "feature",
        "version": 1,
        "weights": model.loaded.weights,
        "tokenizer": model.loaded.tokens,
        "task": model.loaded.task,
        "dtype": str(model.loaded.dtype).removeprefix("torch."),
        "prompt": lens.prompt,
        "template": lens.template,
        "question": lens.question,
        "chat": lens.chat,
        "input": parts.text,
        "input_ids": hashlib.sha256(intact[0].tobytes()).hexdigest(),
        "unit": lens.unit,
        "spans": [[component.start, component.stop] for component in parts.components],
        "joiner": parts.joiner,
        "ablation": lens.ablation,
        "replacement": lens.replacement,
        "target": wanted.target,
        "target_ids": list(wanted.target_ids),
        "foil": wanted.foil,
        "foil_ids": list(wanted.foil_ids),
        "value": wanted.value,
    }


def _name(context: Context) -> bytes:
    symbols, positions, following = context
    numbers = np.concatenate([positions << 32 | symbols, [following]])
    return hashlib.blake2b(numbers.tobytes(), digest_size=16).digest()
