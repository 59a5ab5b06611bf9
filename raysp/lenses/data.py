"""The data lens: components are examples of a training set, and the value is what a model trained on the examples of a mask answers to queries.

The evaluation of a mask trains a LoRA adapter from a common start; the adapter answers every query, and the value is the mean of the queries' scores.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np

from raysp.datasets.grouping import Groups, group
from raysp.datasets.training_sets import Sample, TrainingSet, read_training_set
from raysp.errors import UserError
from raysp.game import Component, Example, Game, GameInfo, Measurement, Query, distinct_labels, fingerprint
from raysp.gradients import GradientReport, PairTerms
from raysp.lenses.encoding import EncodedQuery, encode, encode_queries
from raysp.lenses.selection import numbers_of
from raysp.masks import Masks, check_masks, pack
from raysp.models.frozen_prefix import Text
from raysp.models.influence import Gathered, Singles, by_component, gather, gradient_dot, influence, pair_deviations, tracin
from raysp.models.inputs import Floats, Integers
from raysp.models.lora import Recipe, Stack
from raysp.models.reference import PlainTrainer
from raysp.models.resident import ResidentModel, resident
from raysp.models.training import DivergenceError, Trainer, Watch
from raysp.specs.lenses import DataLens, DataValue

Influence = Literal["influence", "tracin", "gradient_dot"]
INFLUENCES: tuple[Influence, ...] = ("influence", "tracin", "gradient_dot")
#: The methods whose effects are given to fits as priors.
PRIORS: tuple[Influence, ...] = ("influence", "tracin")
#: Length of a query's label in characters.
SHOWN = 60
#: What did not fit into memory, and the remedy.
BATCH = "one batch of training (give a smaller batch_size or max_tokens)"
#: The most pairs that gradients propose; and the most components for which pairs are computed without being asked for.
PROPOSED, MOST_PAIRED = 5000, 1000


@dataclass
class DataGame(Game):
    """Masks over the components of a training set. The `outputs` of a measurement are the scores of the queries; higher favours the answer, except for `loss`."""

    info: GameInfo
    lens: DataLens
    model: ResidentModel = field(repr=False)
    groups: Groups = field(repr=False)
    trainer: Trainer | PlainTrainer = field(repr=False)
    encoded_queries: tuple[EncodedQuery, ...] = field(repr=False)
    value: DataValue
    training: TrainingSet = field(repr=False)

    @property
    def stacked(self) -> int:
        """Number of subsets trained side by side."""
        return self.trainer.stacked

    def examples_of(self, mask: Masks) -> Integers:
        """The numbers of the examples that a mask (bool `(n,)`) keeps, int64."""
        return np.flatnonzero(mask[self.groups.of]).astype(np.int64)

    def measure(self, masks: Masks, *, slopes: bool = False) -> Measurement:
        """Values (float64 `(m,)`), outputs `(m, queries)`, tokens that went through blocks, and seconds. Raises UserError if a training diverges."""
        self.check_slopes(slopes=slopes)
        masks = check_masks(masks, self.n)
        began, before = time.perf_counter(), self._tokens
        seeds = range(self.lens.training_seed, self.lens.training_seed + self.lens.seeds)
        outputs = np.mean([self._outputs(masks, self._seeds(masks, seed)) for seed in seeds], axis=0)
        return Measurement(outputs.mean(axis=1), self._tokens - before, time.perf_counter() - began, outputs)

    def outputs_of(self, masks: Masks, seed: int) -> Floats:
        """Scores of the queries after training with one seed, float64 `(m, queries)`, for masks bool `(m, n)`. Raises as `measure`."""
        checked = check_masks(masks, self.n)
        return self._outputs(checked, [seed] * len(checked))

    def _outputs(self, masks: Masks, seeds: Sequence[int]) -> Floats:
        found = np.empty((len(masks), len(self.encoded_queries)))
        for start in range(0, len(masks), self.stacked):
            some = slice(start, start + self.stacked)
            with self.model.at_work(BATCH):
                found[some] = self._worth(self._trained(masks[some], seeds[some]))
        return found

    def _seeds(self, masks: Masks, seed: int) -> list[int]:
        """The training seed of each mask: the given one, or one derived from it and the mask."""
        if self.lens.seeding == "shared":
            return [seed] * len(masks)
        return [int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big") + row.tobytes()).digest()[:4], "big") for row in pack(masks)]

    def adapters(self, masks: Masks, seed: int) -> Stack:
        """The adapters trained for these masks (bool `(m, n)`), for `Stack.save`. Raises UserError if the model is trained by `PlainTrainer`."""
        checked = check_masks(masks, self.n)
        with self.model.at_work(BATCH):
            return self._adapters([self.examples_of(mask) for mask in checked], [seed] * len(checked), checked)

    def compute_gradients(self, max_order: int) -> GradientReport:
        """Effects of removing each component on each query by each of `INFLUENCES`, and pairs, from a single training on everything with the first seed.

        `influence` and `gradient_dot` hold at the adapter that it ends with, `tracin` along the way; see `raysp.models.influence`. Of more than
        `MOST_PAIRED` components pairs are computed only if `max_order` asks for them.
        """
        if isinstance(self.trainer, PlainTrainer):
            return GradientReport(notes=("gradients of adapters are not available for a model that is trained one subset at a time",))
        with self.model.at_work(BATCH):
            return self._gradient_report(pairs=max_order > 1 or self.n <= MOST_PAIRED)

    # ---- training

    @property
    def _fast(self) -> Trainer:
        if isinstance(self.trainer, PlainTrainer):
            raise UserError(
                "model",
                self.lens.model,
                "is trained one subset at a time, because its architecture does not support adapters side by side",
                "use another model",
            )
        return self.trainer

    @property
    def _tokens(self) -> int:
        return self.trainer.tokens

    def _trained(self, masks: Masks, seeds: Sequence[int]) -> Floats:
        """Sum and number of the targets' log-probabilities for each text of the queries, float64 `(m, texts, 2)`."""
        subsets = [self.examples_of(mask) for mask in masks]
        try:
            return self.trainer.evaluate(subsets, seeds)
        except DivergenceError as error:
            raise self._diverged(error, masks) from None

    def _adapters(self, subsets: Sequence[Integers], seeds: Sequence[int], masks: Masks, watch: Watch | None = None) -> Stack:
        """Adapters trained on the examples that the masks keep."""
        try:
            return self._fast.train(subsets, seeds, watch)
        except DivergenceError as error:
            raise self._diverged(error, masks) from None

    def _diverged(self, error: DivergenceError, masks: Masks) -> UserError:
        gone = np.flatnonzero(~masks[error.row]).tolist()
        named = ", ".join(self.components[i].label for i in gone[:4]) + (" …" if len(gone) > 4 else "")
        what = f"without {len(gone)} of {self.n} components ({named})" if gone else "on everything"
        return UserError(
            "learning_rate", self.lens.learning_rate, f"makes the training {what} diverge at step {error.step}: {error.seen}", "give a smaller one"
        )

    def _worth(self, scored: Floats) -> Floats:
        """Scores of the queries, float64 `(m, queries)`, from the result of `_trained`."""
        found, at = np.empty((len(scored), len(self.encoded_queries))), 0
        for number, query in enumerate(self.encoded_queries):
            sums, counts = np.moveaxis(scored[:, at : at + len(query.texts)], -1, 0)
            found[:, number] = _worth(self.value, sums, counts[0, 0])
            at += len(query.texts)
        return found

    # ---- gradients

    def _path(self) -> tuple[list[tuple[float, Stack]], Stack]:
        """Training on all examples: for each epoch, its mean learning rate and the adapter at its beginning; and the adapter at the end."""
        trainer, everything = self._fast, np.arange(len(self.training.samples))
        steps = -(-len(everything) // trainer.recipe.batch_size)
        found: list[tuple[float, Stack]] = [(0.0, trainer.start([self.lens.training_seed]))]
        paces: list[list[float]] = [[]]

        def watch(stack: Stack, losses: list[list[float]], rates: list[float]) -> None:
            paces[-1].append(rates[0])
            if len(losses[0]) % steps == 0:
                found.append((0.0, stack.copies(0, 1)))
                paces.append([])

        self._adapters([everything], [self.lens.training_seed], np.ones((1, self.n), dtype=np.bool_), watch)
        return [(float(np.mean(some)), stack) for (_, stack), some in zip(found, paces, strict=True) if some], found[-1][1]

    def _gradient_report(self, *, pairs: bool) -> GradientReport:
        checkpoints, last = self._path()
        queries, intact = self._of_queries(last)
        dots: list[Floats] = []

        def chunks() -> Iterator[Singles]:
            """Gradients of the examples at the last adapter, and on the way their products with those of the queries."""
            for chunk in self._of_examples(last):
                dots.append(gradient_dot([chunk], queries))
                yield chunk

        sizes = [down[0].numel() + up[0].numel() for down, up in zip(last.down, last.up, strict=True)]
        gathered = gather(chunks(), len(self.training.samples), queries, sizes=sizes)
        by_example: dict[Influence, Floats] = {
            "influence": influence(gathered),
            "tracin": tracin((pace, self._of_examples(stack), self._of_queries(stack)[0]) for pace, stack in checkpoints),
            "gradient_dot": np.concatenate(dots, axis=1),
        }
        return GradientReport(
            effects={method: by_component(effects, self.groups.of, self.n) for method, effects in by_example.items()},
            leading="influence",
            intact=float(intact.mean()),
            priors=PRIORS,
            pairs=self._pairs(gathered) if pairs else None,
            max_order=2 if pairs else 1,
        )

    def _pairs(self, gathered: Gathered) -> PairTerms:
        """The strongest predicted deviations of pairs on the mean of the queries, with the removed examples' share of the curvature removed as well."""
        weights = np.full(len(self.encoded_queries), 1 / len(self.encoded_queries))
        singles, deviations = pair_deviations(gathered, weights, self.groups.of, self.n)
        first, second = np.triu_indices(self.n, 1)
        strongest = np.argsort(-np.abs(deviations[first, second]), kind="stable")[:PROPOSED]
        chosen = np.stack([first[strongest], second[strongest]], axis=1).astype(np.int64)
        return PairTerms(chosen, deviations[chosen[:, 0], chosen[:, 1]], singles)

    def _of_examples(self, stack: Stack) -> Iterator[Singles]:
        """Gradients of each example's contribution to the loss, float32 `(some, parameters)`, in parts."""
        for _, rows in self._fast.gradients(stack, 0, np.arange(len(self.training.samples))):
            yield -rows.numpy()

    def _of_queries(self, stack: Stack) -> tuple[Singles, Floats]:
        """Gradients of the queries' scores, float32 `(queries, parameters)`, and the scores, float64 `(queries,)`."""
        trainer = self._fast
        scored = trainer.logprobs(stack)[0]
        numbers = np.arange(len(trainer.evaluated))
        rows = np.concatenate([part.numpy() for _, part in trainer.gradients(stack, 0, numbers, "evaluated")])
        found, at = np.empty((len(self.encoded_queries), rows.shape[1]), np.float32), 0
        for number, query in enumerate(self.encoded_queries):
            texts = slice(at, at + len(query.texts))
            found[number] = _slopes(self.value, scored[texts, 0], scored[0 + at, 1]) @ rows[texts]
            at = texts.stop
        return found, self._worth(scored[None])[0]


def _worth(value: DataValue, sums: Floats, count: float) -> Floats:
    """The score of a query from the log-probabilities of its answers, float64 `(m, answers)`; `count` is the number of tokens of the first."""
    if value == "logprob":
        return sums[:, 0]
    if value == "prob":
        return np.exp(sums[:, 0])
    if value in ("logprob_mean", "loss"):
        return sums[:, 0] / (count if value == "logprob_mean" else -count)
    return sums[:, 0] - sums[:, 1:].max(axis=1)


def _slopes(value: DataValue, sums: Floats, count: float) -> Singles:
    """The derivative of a query's score in the log-probabilities of its answers, float32 `(answers,)`."""
    found: Singles = np.zeros(len(sums), np.float32)
    found[0] = {"logprob_mean": 1 / count, "loss": -1 / count, "prob": math.exp(sums[0])}.get(value, 1.0)
    if value in ("margin", "class_margin"):
        found[1 + int(np.argmax(sums[1:]))] = -1.0
    return found


# ---- building


def build_data_game(lens: DataLens, others: TrainingSet | None = None) -> DataGame:
    """Read the training set and the queries, load the model and prepare its training. Raises UserError for anything that they do not support.

    `others` replace the lens's queries; what is trained on stays the same.
    """
    training, queries = read_training_set(lens)
    queries = queries if others is None else others
    groups = group(training, lens)
    model = resident(lens)
    if model.loaded.task != "causal":
        raise UserError("model", lens.model, "is a classifier, and adapters of the data lens are trained to generate an answer", "use a causal language model")
    value = _value(lens, queries)
    encoded = encode(model.loaded, lens, training.samples)
    encoded_queries, query_notes = encode_queries(model.loaded, lens, queries.samples, queries.labels)
    _check_answers(value, encoded_queries)
    texts = [text for query in encoded_queries for text in query.texts]
    with model.at_work(BATCH):
        recipe = _recipe(lens, int(model.loaded.model.config.get_text_config().num_hidden_layers))
        digests = {"texts": _digest([encoded.texts]), "asked": _digest([query.texts for query in encoded_queries])}
        trainer = _trainer(lens, model, recipe, encoded.texts, texts, digests=tuple(digests.values()))
    described = _described(lens, model, recipe, value, groups) | digests | {"components": _digest_array(groups.of)}
    read = dict.fromkeys((*training.notes, *groups.notes, *encoded.notes, *queries.notes, *query_notes))
    notes = (*read, f"model {lens.model} in {model.place}, {trainer.way}")
    info = GameInfo(
        fingerprint(described),
        _components(groups, encoded.texts),
        described,
        notes,
        batch_masks=trainer.stacked,
        warnings=(*training.warnings, *queries.warnings),
        queries=_queries(queries.samples, encoded_queries),
        examples=tuple(Example(i, int(groups.of[i]), sample.prompt, sample.completion) for i, sample in enumerate(training.samples)),
    )
    return DataGame(info, lens, model, groups, trainer, encoded_queries, value, training)


#: Trainers of this process as long as a game holds on to them: games that differ in their seeds only share what is prepared once for all trainings.
_trainers = WeakValueDictionary[tuple[Any, ...], Trainer | PlainTrainer]()


def _trainer(
    lens: DataLens, model: ResidentModel, recipe: Recipe, texts: Sequence[Text], evaluated: Sequence[Text], *, digests: tuple[str, ...]
) -> Trainer | PlainTrainer:
    """The fast trainer if its scores agree with the model's, else the plain one. `digests` are those of the texts."""
    loaded = model.loaded
    key = (id(loaded.model), recipe, *digests)  # a trainer holds its model, so no other has that id
    if (known := _trainers.get(key)) is not None:
        return known
    trainer, reason = Trainer.fitting(loaded.model, loaded.device, recipe, texts, evaluated, lens.model)
    _trainers[key] = found = trainer or PlainTrainer(loaded.model, loaded.device, recipe, texts, evaluated, reason)
    return found


def _value(lens: DataLens, queries: TrainingSet) -> DataValue:
    foils = [sample.foil is not None for sample in queries.samples]
    if lens.value == "margin" and not all(foils):
        raise UserError("value", lens.value, "compares each answer with a foil, and some queries have none", "give every query a foil, or use logprob")
    if lens.value == "class_margin" and len(queries.labels) < 2:
        raise UserError("value", lens.value, "compares labels, and the queries have none", "give columns text and label, or use logprob")
    if lens.value is not None:
        return lens.value
    if len(queries.labels) > 1:
        return "class_margin"
    if any(foils) and not all(foils):
        raise UserError("queries", lens.queries, "have foils in some rows only", "give every query a foil, or none")
    return "margin" if all(foils) else "logprob"


def _check_answers(value: DataValue, queries: Sequence[EncodedQuery]) -> None:
    for number, query in enumerate(queries, 1):
        if value in ("margin", "class_margin") and len(query.texts) < 2:
            raise UserError(
                f"queries row {number}", query.answers[0], f"has nothing that value {value} compares its answer with", "give it a foil, or use logprob"
            )


def _recipe(lens: DataLens, layers: int) -> Recipe:
    modules = tuple(name.strip() for name in lens.target_modules.split(",") if name.strip())
    if not modules:
        raise UserError("target_modules", lens.target_modules, "names no linear layer", "write for example q_proj,v_proj")
    return Recipe(
        lens.rank, lens.alpha, modules, tuple(_layers(lens.adapted_layers, layers)), lens.learning_rate, lens.weight_decay, lens.schedule, lens.warmup,
        lens.epochs, lens.batch_size,
    )  # fmt: skip


def _layers(text: str, layers: int) -> list[int]:
    if text == "all":
        return list(range(layers))
    if text.startswith("last:"):
        count = text.removeprefix("last:")
        if not count.isdecimal() or not 1 <= int(count) <= layers:
            raise UserError("adapted_layers", text, f"asks for another number of layers than the model's {layers} allow", f"write last:1 to last:{layers}")
        return list(range(layers - int(count), layers))
    there = f"layers 0 to {layers - 1}"
    return [number for piece in text.split(",") for number in numbers_of("adapted_layers", text, piece.strip(), layers, there)]


def _components(groups: Groups, texts: Sequence[Text]) -> tuple[Component, ...]:
    sizes = np.bincount(groups.of, [len(text.ids) for text in texts], groups.count).astype(np.int64)
    return tuple(Component(i, label, groups.kind, size=int(size)) for i, (label, size) in enumerate(zip(distinct_labels(groups.labels), sizes, strict=True)))


def _queries(samples: Sequence[Sample], encoded: Sequence[EncodedQuery]) -> tuple[Query, ...]:
    words = (" ".join(f"{sample.prompt} → {sample.completion}".split()) for sample in samples)
    labels = distinct_labels([text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…" for text in words])
    answers = [(each.answers[0], each.answers[1] if len(each.answers) == 2 else None) for each in encoded]
    return tuple(Query(i, label, samples[i].prompt, *answers[i]) for i, label in enumerate(labels))


def _described(lens: DataLens, model: ResidentModel, recipe: Recipe, value: DataValue, groups: Groups) -> dict[str, Any]:
    """Everything that values depend on, apart from texts, in readable form."""
    return {
        "lens": "data",
        "model": lens.model,
        "weights": model.loaded.weights,
        "tokens": model.loaded.tokens,
        "dtype": str(model.loaded.dtype).removeprefix("torch."),
        "value": value,
        "recipe": asdict(recipe) | {"modules": list(recipe.modules), "layers": list(recipe.layers)},
        "training_seed": lens.training_seed,
        "seeds": lens.seeds,
        "seeding": lens.seeding,
        "grouped": groups.kind,
    }


def _digest(groups: Sequence[Sequence[Text]]) -> str:
    found = hashlib.sha256()
    for texts in groups:
        found.update(len(texts).to_bytes(8, "big"))
        for text in texts:
            found.update(text.first.to_bytes(8, "big") + len(text.ids).to_bytes(8, "big") + text.ids.astype(">i8").tobytes())
    return found.hexdigest()


def _digest_array(numbers: Integers) -> str:
    return hashlib.sha256(numbers.astype(">i8").tobytes()).hexdigest()
