"""The games of `engine.py` on the embedded model in float32: words and sentences of prompts, and attention heads.

Values are kept (`kept.py`), so a second run needs no forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.bench.engine_games import BenchGame
from jobs.bench.kept import Kept
from raysp.game import fingerprint
from raysp.lenses import build_game
from raysp.masks import Masks, Values
from raysp.specs.lenses import FeatureLens, ModelOptions
from raysp.spectral.sets import Floats

#: Masks in one forward pass of the heads' game.
ROWS = 64
REVIEWS = (
    "The movie started slowly and the plot was hard to follow at times, but her acting never fails to impress and the ending was so good that I would watch it",
    "I expected nothing from this film and yet it was not bad at all, because the two leads are funny together and no scene is longer than it has to be",
    "Nobody in the audience laughed once, the jokes were old and the story made no sense, although the music was lovely and the costumes were hardly cheap",
)
REVIEW = "Review: {prompt}\nSentiment:"
SENTENCES = (
    "Ada Brandt was born in a small house near the harbour. Her father repaired boats and her mother taught music. The house stood in the city of Lisbon. "
    "When she was nine, the family moved away. They went to Oslo because of her father's work. Ada did not like the cold winters there. "
    "She read every book in the school library. Her favourite subject was chemistry. At eighteen she left for the university. "
    "The university was in Vienna. She shared a room with a painter called Ruth. Ruth painted the river every morning. Ada worked in a laboratory at night. "
    "In her third year she discovered a new dye. The dye was a deep shade of green. A company from Madrid bought the right to use it. "
    "With the money she bought a sailing boat. She named the boat after her mother. Every summer she sails back to the city of her birth. "
    "She still keeps the first sample of the dye."
)
WORDS = (
    "The market opens at six in the morning and closes before noon. Maria sells oranges from her own garden, and her brother Paul sells bread that he bakes "
    "at night. On Mondays the square is empty because the fishermen stay at home. Last week a storm damaged the roof of the old hall, so everybody moved to the "
    "school yard. Paul gave his bread away for free that day, since nobody could find change in the rain."
)
QUESTION = "\nQuestion: {question}\nAnswer:"
ITALY = "The capital of Italy is Rome. The capital of Japan is"


@dataclass
class Prompt:
    """A feature lens as a function of masks; the model is loaded when it is first needed."""

    lens: FeatureLens
    _game: Any = field(init=False, repr=False, default=None)

    @property
    def game(self) -> Any:
        """The lens's game."""
        if self._game is None:
            self._game = build_game(self.lens)
        return self._game

    def name(self) -> str:
        """The game's fingerprint: prompt, template, answer, weights, tokenizer, dtype."""
        return self.game.info.fingerprint

    def __call__(self, masks: Masks) -> Values:
        """The model's preference for its answer."""
        return self.game.evaluate(masks)

    def gate_slopes(self, masks: Masks) -> Floats:
        """Its derivatives in attention gates."""
        found: Floats = self.game.gate_slopes(masks)
        return found


@dataclass
class Heads:
    """Attention heads of some layers as components: a head that is left out has its output zeroed before `o_proj`; every mask is a row of the batch."""

    layers: tuple[int, ...]
    prompt: str = ITALY
    target: str = " Tokyo"
    foil: str = " Rome"

    @property
    def loaded(self) -> Any:
        """The embedded model, the one that the prompts' games use."""
        from raysp.models.resident import resident

        return resident(ModelOptions(dtype="float32")).loaded

    def name(self) -> str:
        """A fingerprint of everything that the values depend on."""
        loaded = self.loaded
        asked = {"lens": "bench heads", "prompt": self.prompt, "target": self.target, "foil": self.foil, "layers": self.layers}
        return fingerprint(asked | {"weights": loaded.weights, "tokens": loaded.tokens, "dtype": str(loaded.dtype)})

    def __call__(self, masks: Masks) -> Values:
        """Logit of the target minus that of the foil after the prompt, `(m,)`."""
        import torch

        loaded = self.loaded
        ids = torch.tensor(loaded.tokenizer(self.prompt)["input_ids"], device=loaded.device)
        target, foil = (loaded.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (self.target, self.foil))
        values: list[Any] = []
        with torch.inference_mode():
            for start in range(0, len(masks), ROWS):
                some = torch.from_numpy(masks[start : start + ROWS]).to(loaded.device)
                with Ablated(loaded.model, self.layers, some):
                    logits = loaded.model(input_ids=ids.expand(len(some), -1), logits_to_keep=1, use_cache=False).logits[:, -1].double()
                values.append((logits[:, target] - logits[:, foil]).cpu().numpy())
        return np.concatenate(values)


class Ablated:
    """Within the block, row r of a batch runs with the heads that `masks[r]` keeps (bool tensor, `(rows, layers x heads)`)."""

    def __init__(self, model: Any, layers: tuple[int, ...], masks: Any) -> None:
        self.modules = [model.model.layers[layer].self_attn.o_proj for layer in layers]
        self.masks = masks.view(len(masks), len(layers), -1)
        self.hooks: list[Any] = []

    def __enter__(self) -> None:
        for number, module in enumerate(self.modules):
            self.hooks.append(module.register_forward_pre_hook(self._hook(number)))

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _hook(self, number: int) -> Callable[[Any, tuple[Any, ...]], tuple[Any]]:
        def ablate(module: Any, inputs: tuple[Any, ...]) -> tuple[Any]:  # noqa: ARG001  torch passes the module
            kept = self.masks[:, number].to(inputs[0].dtype)
            # The heads' outputs lie side by side in the last dimension.
            return (inputs[0] * kept.repeat_interleave(inputs[0].shape[-1] // kept.shape[1], dim=1)[:, None],)

        return ablate


def lens(prompt: str, template: str, target: str, foil: str, **options: Any) -> Prompt:
    """A prompt in a template; the value is the logit of one answer minus that of another."""
    return Prompt(FeatureLens(prompt=prompt, template=template, target=target, foil=foil, value="logit_diff", dtype="float32", **options))


def model_games(quick: bool) -> list[BenchGame]:
    """All games of this module; the two cheapest if `quick`. Nothing is loaded before a value is requested."""
    reviews = [lens(text, REVIEW, " positive", " negative") for text in REVIEWS]
    born = lens(SENTENCES, "{prompt}" + QUESTION, " Lisbon", " Oslo", question="In which city was Ada born?", unit="sentence")
    called = lens(WORDS, "{prompt}" + QUESTION, " Paul", " John", question="What is the name of Maria's brother?")
    some, every = Heads(tuple(range(12, 18))), Heads(tuple(range(30)))

    def kept(game: Prompt | Heads) -> Kept:
        return Kept(game.name, game)

    if quick:
        return [
            BenchGame("review-1", "model", len(REVIEWS[0].split()), kept(reviews[0]), (200,)),
            BenchGame("heads-54", "model", 54, kept(some), (200,)),
        ]
    return [
        # The first with more, and beside SPEX as published.
        BenchGame("review-1", "model", len(REVIEWS[0].split()), kept(reviews[0]), (500, 1000, 2000, 3000), spex=8),
        *(BenchGame(f"review-{i + 1}", "model", len(REVIEWS[i].split()), kept(reviews[i]), (500, 1000)) for i in (1, 2)),
        BenchGame("qa-sentences", "model", 20, kept(born), (500, 1000), heldout=500, spex=6),
        BenchGame("qa-words", "model", len(WORDS.split()), kept(called), (500, 2000), heldout=500),
        BenchGame("heads-54", "model", 54, kept(some), (500, 2000), spex=7),
        BenchGame("heads-270", "model", 270, kept(every), (500, 2000)),
        BenchGame("heads-270-keep-0.9", "model", 270, kept(every), (500, 2000), keep=0.9),
    ]
