"""The mechanistic lens: components are parts of a model, and the value is its answer to one prompt or its performance on a task."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from raysp.blobs import shown
from raysp.datasets.prompt_sets import questions, references
from raysp.datasets.tasks import CountTokens, Question, counter
from raysp.errors import UserError
from raysp.game import Game, GameInfo, Measurement, fingerprint
from raysp.gradients import GradientReport
from raysp.lenses.answers import Answers, answers, check_head
from raysp.lenses.contexts import Context, Reader
from raysp.lenses.framing import frame
from raysp.lenses.gate_gradients import gradient_report
from raysp.lenses.gate_gradients import slopes as slopes_at
from raysp.lenses.readings import Reading, drawn
from raysp.lenses.replacements import Replacements
from raysp.lenses.selection import Chosen, select
from raysp.lenses.self_check import PIECE
from raysp.masks import Masks
from raysp.models.ablation import Ablation
from raysp.models.architecture import Architecture, read_architecture
from raysp.models.blockwise import BlockwiseModel
from raysp.models.classes import has_independent_labels, head_of
from raysp.models.inputs import Floats, Integers
from raysp.models.mask_tree import MaskTree
from raysp.models.memory import is_out_of_memory
from raysp.models.resident import REFUSALS, TOLERANCE, ResidentModel, resident
from raysp.specs.lenses import FeatureLens, MechanisticLens

#: The answer at which a divergence is read: right after the prompt.
ANY_ANSWER = Answers("causal", "logprob", "", (0,), None, ())
#: Tokens run at once. More use the device better, but all of their activations are held in memory.
BUDGET = {"cpu": 2048, "cuda": 65536, "mps": 16384}
#: Maximum number of notes on prompts that are shown.
MOST_NOTES = 8


@dataclass
class MechanisticGame(Game):
    """Masks over the parts of a model; every mask is evaluated on every prompt, and the value is the mean."""

    info: GameInfo
    model: ResidentModel = field(repr=False)
    mask_tree: MaskTree = field(repr=False)
    reading: Reading = field(repr=False)

    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """Values (float64 `(m,)`), tokens that the model computed (a backward pass counts as another pass), and seconds; slopes `(m, 1, n)` if requested."""
        self.check_slopes(slopes=slopes)
        began, before = time.perf_counter(), self.mask_tree.tokens
        gradients = None
        if slopes:
            with self.model.at_work("one prompt"):
                values, found = slopes_at(self.mask_tree, self.reading, masks.astype(np.float64), drawn(masks))
            gradients = found[:, None].astype(np.float32)
        else:
            values = self.by_prompt(masks).mean(axis=1)
        return Measurement(values, self.mask_tree.tokens - before, time.perf_counter() - began, slopes=gradients)

    def by_prompt(self, masks: Masks) -> Floats:
        """Each prompt's value under each mask (bool, `(m, n)`), float64 `(m, prompts)`. EvaluationError if one prompt does not fit into memory."""
        with self.model.at_work("one prompt"):
            return self.reading.by_prompt(self.mask_tree, masks)

    def compute_gradients(self, max_order: int) -> GradientReport:
        """Gradients on the components' gates: attribution patching, integrated gates, and with `max_order` 2 pairs."""
        with self.model.at_work("one prompt"):
            return gradient_report(self.mask_tree, self.reading, max_order)


def build_mechanistic_game(lens: MechanisticLens, other_questions: Sequence[Question] | None = None) -> MechanisticGame:
    """Load the model, find its parts and prepare the prompts, or those of `other_questions` in place of the lens's own.

    Raises UserError for anything that the lens asks and the model does not support.
    """
    _check_options(lens)
    model = resident(lens)
    if lens.clamp is not None and abs(lens.clamp) > torch.finfo(model.loaded.dtype).max:
        raise UserError("clamp", lens.clamp, f"is not a number that activations in {model.place} can have", "give the constant, for example 0.5")
    with model.at_work("one prompt"):
        architecture = read_architecture(model.loaded.model, lens.model)
        prepared = _prepared_questions(lens, model, other_questions)
        chosen = select(lens.components, lens.layers, lens.group, architecture, max(len(each.context[0]) for each in prepared))
        blockwise = BlockwiseModel(model.loaded.model, architecture, model.loaded.device)
        mask_tree = MaskTree(blockwise, Ablation(architecture, chosen.parts, lens.ablation == "zero-rescale"), BUDGET.get(model.loaded.device.type, 2048))
        replaced = _replacements(lens, model, mask_tree, prepared)
        reading = Reading([each.answers for each in prepared], [each.context for each in prepared], _at(lens, prepared), replaced, _reduction(lens))
        _check_blockwise(lens, model, blockwise, reading)
        warnings = reading.warnings(mask_tree, lens.task)
    described = _described(lens, model, prepared, chosen, architecture) | {"references": replaced.name}
    if has_independent_labels(model.loaded.model):
        described["labels"] = "independent"
    name = fingerprint(_identity(described, prepared, _at(lens, prepared)))
    framed = frame(_one_prompt(lens, prepared[0].question), model.loaded.tokenizer)
    notes = (f"model {lens.model} in {model.place}, block by block", *framed.notes, *_notes(lens, prepared))
    batch = model.request_masks(_tokens_of_a_mask(mask_tree, reading))
    # A share of right answers is a step function of the gates.
    info = GameInfo(name, chosen.components, described, notes, batch, _source(lens), warnings, slopes=reading.reduction != "accuracy")
    return MechanisticGame(info, model, mask_tree, reading)


def _check_options(lens: MechanisticLens) -> None:
    if "{question}" in lens.template:
        raise UserError("template", lens.template, "has a place for a question, but this lens has no question", "write the question into the template")
    if lens.ablation == "clamp" and lens.clamp is None:
        raise UserError("clamp", None, "is needed by ablation clamp", "give the constant, for example 0.5")
    if lens.ablation != "clamp" and lens.clamp is not None:
        raise UserError("clamp", lens.clamp, f"is given, but the ablation is {lens.ablation}", "set ablation to clamp, or leave it out")
    if lens.ablation != "patch" and lens.counterfactual is not None:
        raise UserError("counterfactual", lens.counterfactual, f"is given, but the ablation is {lens.ablation}", "set ablation to patch, or leave it out")


def _reduction(lens: MechanisticLens) -> str:
    return lens.value if lens.value in ("kl", "accuracy") else "mean"


# ---- prompts


@dataclass(frozen=True, slots=True)
class PreparedQuestion:
    """A question as the model reads it up to where its answers begin, with these answers, which took `merged` tokens over from its end."""

    question: Question
    context: Context
    answers: Answers
    merged: tuple[int, ...] = ()

    def like(self, context: Context) -> Integers:
        """The tokens (int64) of another prompt in the same template, up to where these answers would begin."""
        return replace(self.answers, merged=self.merged).before_answer(context)[0]


def tokens(lens: MechanisticLens) -> CountTokens:
    """How many tokens of the lens's model a text has."""
    return counter(resident(lens).loaded.tokenizer)


def _prepared_questions(lens: MechanisticLens, model: ResidentModel, instead: Sequence[Question] | None) -> list[PreparedQuestion]:
    found = list(instead) if instead is not None else questions(lens, tokens(lens))
    value, several = _value_of_each(lens, model, found), len(found) > 1
    prepared: list[PreparedQuestion] = []
    for number, question in enumerate(found, 1):
        try:
            prepared.append(_answered(lens, model, question, value))
        except UserError as error:
            raise error.about(f"prompt {number}, {error.field}" if several else error.field) from None
    return prepared


def _answered(lens: MechanisticLens, model: ResidentModel, question: Question, value: Any) -> PreparedQuestion:
    feature = _one_prompt(lens, question, value)
    reader, context, text = _read(feature, model)
    # A divergence compares the whole distribution with the intact one, not a token.
    wanted = ANY_ANSWER if lens.value == "kl" else answers(feature, reader, context, text)
    context, merged = wanted.before_answer(context), wanted.merged
    length = len(context[0]) + wanted.longest
    if model.context is not None and length > model.context:
        problem = f"has {length} tokens with its template and answer, and the model reads {model.context}"
        raise UserError("prompt", question.prompt, problem, "shorten the prompt, or use a model with a longer context")
    return PreparedQuestion(question, context, replace(wanted, merged=()), merged)


def _one_prompt(lens: MechanisticLens, question: Question, value: Any = None) -> FeatureLens:
    options = {name: getattr(lens, name) for name in ("model", "dtype", "device", "template", "chat", "date", "max_new_tokens")}
    return FeatureLens(**options, prompt=question.prompt, target=question.target, foil=question.foil, value=value)


def _read(feature: FeatureLens, model: ResidentModel) -> tuple[Reader, Context, str]:
    """A prompt in its template as the model reads it, and as text."""
    framed = frame(feature, model.loaded.tokenizer)
    reader, text = Reader(model, framed.special), framed.text(feature.prompt)
    ids = reader.ids([text])[0]
    return reader, (ids, np.arange(len(ids)), len(ids)), text


def _notes(lens: MechanisticLens, prepared: Sequence[PreparedQuestion]) -> list[str]:
    """Notes on the prompts, the first `MOST_NOTES` of them."""
    found = list(dict.fromkeys(note for each in prepared for note in each.answers.notes))
    if lens.value == "kl" and (lens.target is not None or lens.foil is not None):
        found.insert(0, "target and foil are not used by value kl, which covers the whole next-token distribution")
    more = len(found) - MOST_NOTES
    return found if more <= 0 else [*found[:MOST_NOTES], f"… and {more} more notes like these on other prompts"]


def _value_of_each(lens: MechanisticLens, model: ResidentModel, prompts: Sequence[Question]) -> Any:
    """The quantity read for each prompt, which is the same for all; None if it follows from the answers of a single prompt."""
    if model.loaded.task == "classifier":
        check_head(lens.value, any(question.foil is not None for question in prompts), model.loaded.model)
    if lens.value == "kl":
        return None
    if lens.value not in (None, "accuracy") or (lens.value is None and len(prompts) == 1):
        return lens.value
    foils = {question.foil is not None for question in prompts}
    if len(foils) > 1:
        raise UserError("foil", None, "is missing in some of the prompts", "give every prompt a foil, or none")
    if foils == {False}:
        regression = model.loaded.task == "classifier" and lens.value is None and head_of(model.loaded.model) == "regression"
        return "class_logit" if regression else "logprob"
    single = model.loaded.task == "classifier" or all(_is_single(lens, model, question) for question in prompts)
    return "logit_diff" if single else "logprob_diff"


def _is_single(lens: MechanisticLens, model: ResidentModel, question: Question) -> bool:
    """Whether the answers to a question that are given are one token each."""
    reader, _, text = _read(_one_prompt(lens, question), model)
    given = [answer for answer in (question.target, question.foil) if answer is not None]
    return all(len(ids) == 1 for ids in reader.continuation(text, given).answers)


def _at(lens: MechanisticLens, prepared: Sequence[PreparedQuestion]) -> list[Integers] | None:
    """The positions ablated in each prompt; None for all."""
    if lens.positions == "all":
        return None
    try:
        wanted = [-1] if lens.positions == "last" else [int(piece) for piece in lens.positions.split(",")]
    except ValueError:
        raise UserError("positions", lens.positions, "is not a list of positions", "write all, last, or numbers such as 0,3,-1") from None
    lengths = [len(each.context[0]) for each in prepared]
    shortest = min(lengths)
    for position in wanted:
        if not -shortest <= position < shortest:
            raise UserError("positions", lens.positions, f"asks for {position} of a prompt of {shortest} tokens", f"give {-shortest} to {shortest - 1}")
    return [np.unique([position % length for position in wanted]) for length in lengths]


def _replacements(lens: MechanisticLens, model: ResidentModel, mask_tree: MaskTree, prepared: Sequence[PreparedQuestion]) -> Replacements:
    def read(field: str, prompt: str, question: PreparedQuestion) -> Integers:
        ids = question.like(_read(_one_prompt(lens, Question(prompt)), model)[1])
        if model.context is not None and len(ids) > model.context:
            raise UserError(field, prompt, f"has {len(ids)} tokens with its template, and the model reads {model.context}", "shorten it")
        return ids

    if lens.ablation == "patch":
        lacking = next((each.question for each in prepared if each.question.counterfactual is None), None)
        if lacking is not None:
            raise UserError("counterfactual", None, f"is needed by ablation patch of {lacking.prompt!r}", "give the prompt that has another answer")
        others = [[read("counterfactual", each.question.counterfactual or "", each)] for each in prepared]
    else:
        # References have no answers of their own: they end where the first prompt does.
        others = [[read("references", text, prepared[0]) for text in references(lens, [each.question for each in prepared])]]
    return Replacements(lens.ablation, lens.clamp, mask_tree, [each.context[0] for each in prepared], others)


# ---- checks and description


def _check_blockwise(lens: MechanisticLens, model: ResidentModel, blockwise: BlockwiseModel, reading: Reading) -> None:
    """Check that running block by block gives the model's own logits: on a piece of two rows, and on the longest input. Raises UserError where it does not.

    That is so for architectures whose blocks are given more than hidden states, positions and a mask.
    """
    groups = sorted(reading.groups, key=lambda group: group.length)
    checks = {ids.shape[1]: (ids, 2) for ids in (group.ids[:1, :PIECE] for group in (groups[0], groups[-1]))}
    if groups[-1].length > PIECE:
        checks[groups[-1].length] = groups[-1].ids[:1], 1
    for ids, rows in checks.values():
        try:
            difference = _difference(model, blockwise, ids, rows)
        except REFUSALS as error:
            if is_out_of_memory(error):
                raise
            raise _not_blockwise(lens, f"its blocks refuse a batch ({type(error).__name__})") from None
        if difference > TOLERANCE[model.loaded.dtype]:
            raise _not_blockwise(lens, f"its logits would be off by {difference:.2g} of the largest")


def _difference(model: ResidentModel, blockwise: BlockwiseModel, ids: torch.Tensor, rows: int) -> float:
    """The largest difference between the logits block by block and the model's own, relative to the largest of these."""
    with torch.no_grad():
        several = ids.expand(rows, -1)
        hidden, calls = blockwise.entry(several, 0), blockwise.calls(several)
        for call, block in zip(calls, blockwise.architecture.blocks, strict=True):
            hidden = call(block.module, hidden)
        ours, theirs = blockwise.logits(several, hidden, ids.shape[1] - 1).cpu().double(), model.loaded.model(input_ids=ids).logits.cpu().double()
    theirs = theirs if theirs.ndim == 2 else theirs[:, -1:]
    return float((ours - theirs).abs().max()) / (1 + float(theirs.abs().max()))


def _not_blockwise(lens: MechanisticLens, problem: str) -> UserError:
    remedy = "use another model: the blocks of this one take more than hidden states, positions and a mask"
    return UserError("model", lens.model, f"cannot be run block by block: {problem}", remedy)


def _tokens_of_a_mask(mask_tree: MaskTree, reading: Reading) -> float:
    """The number of tokens that a mask costs: those of every prompt, in the layers from the lowest ablated one on."""
    share = 1 - min(mask_tree.ablation.layers) / mask_tree.blockwise.architecture.layers
    return share * sum(group.ids.numel() for group in reading.groups)


def _described(lens: MechanisticLens, model: ResidentModel, prepared: Sequence[PreparedQuestion], chosen: Chosen, architecture: Architecture) -> dict[str, Any]:
    """A readable description of the game, which includes everything that identifies it."""
    first = prepared[0].answers
    named = {"target": first.target, "foil": first.foil} if len(prepared) == 1 and lens.value != "kl" else {}
    return {
        "lens": "mechanistic",
        "version": 1,
        "weights": model.loaded.weights,
        "tokenizer": model.loaded.tokens,
        "model_task": model.loaded.task,
        "dtype": str(model.loaded.dtype).removeprefix("torch."),
        "prompts": [_described_prompt(lens, each) for each in prepared],
        "task": lens.task,
        "selection": lens.components if lens.layers is None else f"{lens.components} of layers {lens.layers}",
        "parts": [[part.layer, part.site, part.start, part.stop] for part in chosen.parts],
        "layers": architecture.layers,
        "heads": max(block.heads for block in architecture.blocks),
        "ablation": lens.ablation,
        "clamp": lens.clamp,
        "positions": lens.positions,
        "value": lens.value or first.value,
        **named,
    }


def _identity(described: Mapping[str, Any], prepared: Sequence[PreparedQuestion], at: list[Integers] | None) -> dict[str, Any]:
    """Everything that values depend on and nothing else: another way to write the same selection or the same prompts is the same game."""
    parts = ("lens", "version", "weights", "tokenizer", "model_task", "dtype", "parts", "ablation", "clamp", "value", "references")
    ids = [[prompt.get(name) for name in ("ids", "target_ids", "foil_ids")] for prompt in described["prompts"]]
    positions = None if at is None else [positions.tolist() for positions in at]
    parts += ("labels",) if "labels" in described else ()
    return {name: described[name] for name in parts} | {"prompts": ids, "positions": positions, "read": prepared[0].answers.value}


def _described_prompt(lens: MechanisticLens, prepared: PreparedQuestion) -> dict[str, Any]:
    described: dict[str, Any] = {"prompt": prepared.question.prompt, "ids": prepared.context[0].tolist()}
    if lens.value == "kl":
        return described
    wanted = prepared.answers
    return described | {"target": wanted.target, "target_ids": list(wanted.target_ids), "foil": wanted.foil, "foil_ids": list(wanted.foil_ids)}


def _source(lens: MechanisticLens) -> str:
    return lens.prompt or (shown(lens.prompts) if lens.prompts else f"task {lens.task}")
