"""The games of `intact.py`: words of reviews, sentences and heads of the embedded model, with values (and slopes, for heads) kept between runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs.bench.engine_model_games import QUESTION, REVIEW, REVIEWS, SENTENCES, WORDS, lens
from jobs.bench.indices import games as small_games
from jobs.bench.kept import Kept
from jobs.bench.slope_games import SlopeGame
from raysp.masks import Masks, Values
from raysp.spectral.sets import Floats

REVIEW_10 = "The movie was not bad because her acting never fails"
REVIEW_19 = "The movie started slowly and the plot was hard to follow but her acting never fails to impress us"
REVIEW_38 = f"{REVIEWS[0]} again with my sister next week"
REVIEW_40 = f"{REVIEWS[1]} which is rare in comedies of this kind these days"


@dataclass(frozen=True)
class IntactGame:
    """A function of masks with `n` components, the game of slopes that it is, if it has slopes, and what gives those of attention gates, if it is a prompt."""

    name: str
    n: int
    value: Callable[[Masks], Values]
    sloped: SlopeGame | None = None
    gate_slopes: Callable[[Masks], Floats] | None = None


@dataclass
class Questions:
    """The games by name; nothing is loaded before a value is asked for."""

    @cached_property
    def _words(self) -> dict[str, tuple[str, str, str, str, dict[str, Any]]]:
        review = {"words-10": REVIEW_10, "review-19": REVIEW_19, "review-38": REVIEW_38, "review-40": REVIEW_40}
        born = {"question": "In which city was Ada born?", "unit": "sentence"}
        called = {"question": "What is the name of Maria's brother?"}
        return {
            **{name: (text, REVIEW, " positive", " negative", {}) for name, text in review.items()},
            "sentences-20": (SENTENCES, "{prompt}" + QUESTION, " Lisbon", " Oslo", born),
            "question-77": (WORDS, "{prompt}" + QUESTION, " Paul", " John", called),
        }

    def of(self, name: str) -> IntactGame:
        """The game with a name."""
        if name in self._words:
            text, template, target, foil, options = self._words[name]
            prompt = lens(text, template, target, foil, **options)
            return IntactGame(name, 20 if "unit" in options else len(text.split()), Kept(prompt.name, prompt), None, prompt.gate_slopes)
        if name in small_games():
            n, build = small_games()[name]
            game = build()
            return IntactGame(name, n, Kept(game.name, game))
        heads = SlopeGame(name)
        return IntactGame(name, heads.lens.n, heads.values, heads)
