"""Models that stay in memory and score batches of ablated inputs. They know tokens and positions, but not prompts, masks or values."""

import contextlib
import inspect
import math
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from raysp.errors import DoesNotFitError, EvaluationError
from raysp.models.identity import folder_stamp
from raysp.models.inputs import Floats, Inputs, Integers, Scores
from raysp.models.loading import LoadedModel, check_hash, choose_device, choose_dtype, does_not_fit, load, required_bytes
from raysp.models.memory import available_bytes, is_out_of_memory, release
from raysp.models.packing import PackedScorer, Root
from raysp.models.padded import PaddedScorer, Padding
from raysp.specs.lenses import ModelOptions

Method = Literal["packed", "padded", "alone"]
_SLOWER: dict[Method, Method] = {"packed": "padded", "padded": "alone"}
_REQUEST_SECONDS = 2.0
_OPERATIONS = {"cpu": 5e10, "cuda": 5e13, "mps": 2e12}
# Nodes in one pack. Larger packs share the cost of reading the weights; the attention mask grows with the square.
_PACK = {"cpu": 384, "cuda": 2048, "mps": 1024}
_PADDED = {"cpu": 1024, "cuda": 16384, "mps": 4096}
# Largest difference between two methods of scoring, relative to the size of the logits, that counts as rounding.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
# A padding token that occurs in no text.
NO_PADDING = -1
# What architectures raise that do not support a method of scoring.
REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError)


@dataclass(slots=True, weakref_slot=True)
class ResidentModel:
    """A loaded model and the methods by which it can score inputs. Requests from several threads take turns on one lock."""

    loaded: LoadedModel
    pack: int
    budget: int
    packed: PackedScorer | None = field(init=False)
    padded: PaddedScorer = field(init=False)
    reference: PaddedScorer = field(init=False)
    lock: Any = field(init=False, repr=False, default_factory=threading.RLock)
    _chosen: dict[tuple[bool, bool], tuple[Method, str | None]] = field(init=False, repr=False, default_factory=dict)
    _checked: dict[tuple[bool, bool], int] = field(init=False, repr=False, default_factory=dict)
    _mean: Tensor | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        model = self.loaded.model
        parameters = inspect.signature(model.forward).parameters
        keeps = "logits_to_keep" in parameters
        takes_positions = self.takes_positions
        common = (model, self.loaded.device, self._embed)
        suits = takes_positions and getattr(model.config, "_attn_implementation", None) in ("sdpa", "eager")
        self.packed = PackedScorer(*common, self.pack, keeps) if suits else None
        classifies = self.loaded.task == "classifier"
        config = model.config.get_text_config()
        pad = config.pad_token_id
        padding: Padding = "right" if classifies and pad is not None and pad >= 0 else "left" if takes_positions else "none"
        if classifies and pad is None:
            config.pad_token_id = NO_PADDING  # without one, decoder classifiers refuse even batches of equal length
        rest = (max(pad or 0, 0), self.vocabulary, takes_positions, keeps, classifies)
        self.padded = PaddedScorer(*common, self.budget, padding, *rest)
        self.reference = PaddedScorer(*common, 0, "none", *rest)

    @property
    def takes_positions(self) -> bool:
        """Whether the model accepts explicit positions. Bidirectional models number positions in their own way."""
        return self.loaded.task == "causal" and "position_ids" in inspect.signature(self.loaded.model.forward).parameters

    @property
    def vocabulary(self) -> int:
        """Number of rows of the embedding table; symbols from here on stand for vectors that belong to no token."""
        return int(self.loaded.model.get_input_embeddings().weight.shape[0])

    @property
    def zero_symbol(self) -> int:
        """The symbol of the zero vector."""
        return self.vocabulary

    @property
    def mean_symbol(self) -> int:
        """The symbol of the mean embedding of the vocabulary."""
        return self.vocabulary + 1

    @property
    def context(self) -> int | None:
        """The longest input in tokens; None if the configuration does not state it."""
        config = self.loaded.model.config.get_text_config()
        names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
        limit = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
        # Models of these types count positions from the padding token's id plus one.
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _COUNTS_FROM_PADDING else 0
        return None if limit is None else int(limit) - offset

    @property
    def place(self) -> str:
        """Device and dtype, for notes."""
        device = self.loaded.device
        where = f"cpu with {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
        return f"{str(self.loaded.dtype).removeprefix('torch.')} on {where}"

    def request_masks(self, tokens: float) -> int:
        """The number of masks, at this many tokens each, in a request of about two seconds.

        Computed from the number of operations and the kind of device rather than timed, so that a game is cut into the same batches everywhere.
        """
        kind = self.loaded.device.type
        rate = _OPERATIONS.get(kind, 5e10) * (torch.get_num_threads() if kind == "cpu" else 1)
        parameters = sum(p.numel() for p in self.loaded.model.parameters())
        masks = _REQUEST_SECONDS * rate / (2 * parameters * tokens)
        return 2 ** round(math.log2(min(max(masks, 16), 4096)))

    @contextmanager
    def at_work(self, what: str) -> Generator[None]:
        """Within a `with` block, hold the model's lock; if memory runs out, raise an EvaluationError stating that it does not hold `what`."""
        with self.lock:
            try:
                yield
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise EvaluationError(f"memory does not hold {what} on {self.loaded.device}") from error
                raise

    def choose(self, sample: Inputs) -> tuple[Method, str | None]:
        """The fastest method of scoring that agrees with single forward passes on a sample, and a remark if it is not the usual one.

        A kind of input is checked once up to each length, not again for shorter inputs.
        """
        kind, longest = self._kind(sample), int(sample.lengths.max())
        with self.lock:
            if self._checked.get(kind, -1) < longest:
                self._chosen[kind], self._checked[kind] = self._choose(sample), longest
            return self._chosen[kind]

    def _kind(self, inputs: Inputs) -> tuple[bool, bool]:
        """Whether inputs have vectors that are no token's, and whether they skip positions."""
        return bool((inputs.symbols >= self.vocabulary).any()), bool((np.diff(inputs.positions) > 1).any())

    def score_checked(
        self, inputs: Inputs, method: Method, root: Root | None = None, *, logprobs: bool = True, remark: str | None = None
    ) -> tuple[Scores, Method, str | None]:
        """As `score`, with the method used: a slower one, and a remark, if the given one does not agree with a single forward pass on the longest of these inputs.

        That costs one forward pass whenever inputs are longer than any checked before, for example if `choose` was given only pieces of a prompt.
        """
        scores = self.score(inputs, method, root, logprobs=logprobs)
        kind, longest = self._kind(inputs), int(inputs.lengths.argmax())
        with self.lock:
            if method == "alone" or self._checked.get(kind, -1) >= inputs.lengths[longest]:
                return scores, method, remark
            mine = inputs.read_sequence == longest
            found = Scores(scores.logits[mine], scores.logprobs[mine], 0)
            mismatch = _difference(found, self.score(inputs.chosen(np.array([longest])), "alone", logprobs=logprobs), TOLERANCE[self.loaded.dtype])
            if mismatch is None:
                self._checked[kind] = int(inputs.lengths[longest])
                return scores, method, remark
            slower, remark = _SLOWER[method], "; ".join([*([remark] if remark else []), f"{method} scoring is not used: {mismatch}"])
            self._chosen[kind] = slower, remark
            return self.score_checked(inputs, slower, logprobs=logprobs, remark=remark)

    def _choose(self, sample: Inputs) -> tuple[Method, str | None]:
        expected = self.score(sample, "alone")
        methods: list[Method] = ["packed", "padded"] if self.loaded.task == "causal" else ["padded"]
        remarks: list[str] = []
        for method in methods:
            mismatch = self._mismatch(method, sample, expected)
            if mismatch is None:
                return method, "; ".join(remarks) or None
            remarks.append(f"{method} scoring is not used: {mismatch}")
        return "alone", "; ".join(remarks)

    def _mismatch(self, method: Method, sample: Inputs, expected: Scores) -> str | None:
        try:
            scores = self.score(sample, method)
        except (*REFUSALS, EvaluationError) as error:
            cause = error.__cause__ or error
            if is_out_of_memory(cause):
                raise
            return f"this architecture refuses it ({type(cause).__name__})"
        return _difference(scores, expected, TOLERANCE[self.loaded.dtype])

    def score(self, inputs: Inputs, method: Method, root: Root | None = None, *, logprobs: bool = True) -> Scores:
        """Score inputs with the given method. EvaluationError if memory does not hold a single input, or the model's own forward pass fails."""
        with self.lock, self._forward(int(inputs.lengths.max())):
            if method == "packed" and self.packed is not None:
                return self.packed.score(inputs, root, logprobs=logprobs)
            if method == "packed":
                raise TypeError("no packed scoring")
            scorer = self.padded if method == "padded" else self.reference
            return scorer.score(inputs, logprobs=logprobs)

    @contextmanager
    def _forward(self, tokens: int) -> Generator[None]:
        """Within the block, the model reads inputs of at most `tokens` tokens; its errors become one-line EvaluationErrors."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise EvaluationError(f"one input of {tokens} tokens does not fit into memory on {self.loaded.device}") from error
            kind, message = type(self.loaded.model).__name__, (str(error).strip().splitlines() or [""])[0][:160]
            raise EvaluationError(f"the model cannot read an input of {tokens} tokens: {kind} fails in its own forward pass ({message})") from error

    def answer(self, symbols: Integers, limit: int) -> list[int]:
        """The greedy continuation of a causal model, at most `limit` tokens, without the end-of-sequence token."""
        ends, model = _end_tokens(self.loaded), self.loaded.model
        options: dict[str, Any] = {"use_cache": self.packed is not None}
        if self.reference.keeps_logits:
            options["logits_to_keep"] = 1
        answer: list[int] = []
        ids = torch.from_numpy(symbols).to(self.loaded.device)[None]
        with self.lock, torch.inference_mode(), self._forward(len(symbols) + limit):
            while len(answer) < limit:
                output = model(input_ids=ids, **options)
                token = output.logits[:, -1:].argmax(-1)
                if int(token) in ends:
                    break
                answer.append(int(token))
                # With cached keys and values, only the new token is read.
                past = getattr(output, "past_key_values", None) if options["use_cache"] else None
                options["past_key_values"] = past
                ids = torch.cat([ids, token], dim=1) if past is None else token
        return answer

    def next_tokens(self, symbols: Integers, count: int) -> list[tuple[int, float]]:
        """The `count` tokens that a causal model finds most probable after an input, with their probabilities, the most probable first."""
        options: dict[str, Any] = {"use_cache": False} | ({"logits_to_keep": 1} if self.reference.keeps_logits else {})
        with self.lock, torch.inference_mode(), self._forward(len(symbols)):
            ids = torch.from_numpy(symbols).to(self.loaded.device)
            found = self.loaded.model(input_ids=ids[None], **options).logits[0, -1].cpu().double().softmax(-1).topk(count)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))

    def class_logits(self, symbols: Integers) -> Floats:
        """All logits of a classifier for one input, float64 `(classes,)`."""
        with self.lock, torch.inference_mode(), self._forward(len(symbols)):
            ids = torch.from_numpy(symbols).to(self.loaded.device)
            return self.loaded.model(input_ids=ids[None]).logits[0].cpu().double().numpy()

    def _embed(self, symbols: Tensor) -> dict[str, Tensor]:
        vocabulary = self.vocabulary
        if not (symbols >= vocabulary).any():
            return {"input_ids": symbols}
        table = self.loaded.model.get_input_embeddings()
        embedded = table(symbols.clamp(max=vocabulary - 1)).clone()
        embedded[symbols == self.zero_symbol] = 0
        if self._mean is None:
            # Through the module rather than from its weights, as some models scale embeddings in it.
            everything = torch.arange(vocabulary, device=symbols.device).split(8192)
            total = sum((table(part).cpu().double().sum(0) for part in everything), torch.zeros((), dtype=torch.float64))
            self._mean = (total / vocabulary).to(embedded)
        embedded[symbols == self.mean_symbol] = self._mean
        return {"inputs_embeds": embedded}


_COUNTS_FROM_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}
#: Share of the available memory that a model's weights may take: the rest is for activations, caches and everything else in the process.
FILLED = 0.8
#: Models of this process by what names them, the least recently used first.
_residents: OrderedDict[tuple[Any, ...], ResidentModel] = OrderedDict()
#: Those that a game still holds too: a model that had to leave is found here until its memory is free, and not loaded twice.
_held = WeakValueDictionary[tuple[Any, ...], ResidentModel]()
_loading = threading.Lock()


def resident(options: ModelOptions) -> ResidentModel:
    """The one model of this process for these options, loaded at first use. UserError as in `loading.load`.

    Models that were used least recently leave memory until the new one fits; their memory is free once no game holds on to them. DoesNotFitError where even
    then it does not fit: on a CPU before it is loaded, as the kernel would end the process.
    """
    check_hash(options)
    key = _key(options)
    with _loading:
        if key not in _residents:
            _residents[key] = _held[key] = _held.get(key) or _new(options)
        _residents.move_to_end(key)
        return _residents[key]


def is_resident(options: ModelOptions) -> bool:
    """Whether the model of these options is in memory."""
    return _key(options) in _residents


def fits_beside(options: ModelOptions) -> bool:
    """Whether memory holds the model of these options beside those that are in it. UserError as `resident`."""
    if is_resident(options):
        return True
    needed, device = required_bytes(options)
    available = available_bytes(device)
    return available is None or needed <= FILLED * available


def let_go(options: ModelOptions) -> None:
    """Remove the model of these options from memory, once no game holds on to it."""
    with _loading:
        if (found := _residents.get(_key(options))) is not None:
            _drop(found)
            device = found.loaded.device
            del found
            release(device)


def _key(options: ModelOptions) -> tuple[Any, ...]:
    device = choose_device(options.device)
    # `auto` may spread a model over several devices, which the name of one does not.
    place = "auto" if options.device == "auto" else str(device)
    return (options.model, options.allow_pickle, options.allow_remote_code, place, choose_dtype(options.dtype, device), folder_stamp(options.model))


def _new(options: ModelOptions) -> ResidentModel:
    loaded = _loaded(options)
    twin = next((other for other in _held.values() if _same(other.loaded, loaded)), None)
    return twin or ResidentModel(loaded, _PACK.get(loaded.device.type, 384), _PADDED.get(loaded.device.type, 1024))


def _loaded(options: ModelOptions) -> LoadedModel:
    _make_room(options)
    with contextlib.suppress(DoesNotFitError):
        return load(options)
    # After the block: within it, the error's traceback would keep the partly loaded model in memory.
    _residents.clear()
    release(choose_device(options.device))
    return load(options)


def _make_room(options: ModelOptions) -> None:
    """Let go of the least recently used models until the new one fits. DoesNotFitError where it does not fit a CPU's memory without them."""
    needed, device = required_bytes(options)
    while (available := available_bytes(device)) is not None and needed > FILLED * available:
        if not _residents:
            if device.type == "cpu":
                raise does_not_fit(options, device)
            return  # a GPU's driver raises an error of its own, and a model may be spread over several GPUs
        _drop(next(iter(_residents.values())))
        release(device)


def _drop(model: ResidentModel) -> None:
    for key in [key for key, held in _residents.items() if held is model]:  # equal models in two folders are one
        del _residents[key]


def _same(one: LoadedModel, other: LoadedModel) -> bool:
    return (one.weights, one.tokens, one.dtype, one.device, one.task) == (other.weights, other.tokens, other.dtype, other.device, other.task)


def _difference(scores: Scores, expected: Scores, tolerance: float) -> str | None:
    ours = np.concatenate([scores.logits, scores.logprobs])
    theirs = np.concatenate([expected.logits, expected.logprobs])
    # Values that are not finite are reported when they are measured, with their mask; here they are ignored.
    finite = np.isfinite(theirs)
    difference = np.abs(ours - theirs)[finite].max(initial=0.0)
    allowed = tolerance * (1 + np.abs(theirs[finite]).max(initial=0.0))
    return None if difference <= allowed else f"it is {difference:.2g} from single forward passes"


def _end_tokens(loaded: LoadedModel) -> set[int]:
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {int(end) for end in ends | {loaded.tokenizer.eos_token_id} if end is not None}
