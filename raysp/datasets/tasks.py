"""Prompt sets made on the spot, of which it is known what a model should answer: a component's effect on a task is its effect on these.

Each prompt has a target, a foil that is as likely for a model that has not understood, and a counterfactual of the same build whose answer is another one.
Words are drawn from lists, those that are one token of the model's tokenizer, and a counterfactual has as many tokens as its prompt: they line up.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.errors import UserError

#: Questions drawn in a row without a new one, after which there are no more.
IN_VAIN = 5000

CountTokens = Callable[[str], int]
"""How many tokens a text is that follows another."""
Fits = Callable[[str], bool]
"""Whether a word, after a blank, is one token."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, the answer asked about (None: the model's own), the answer it is compared with, and a prompt that would have another answer."""

    prompt: str
    target: str | None = None
    foil: str | None = None
    counterfactual: str | None = None


NAMES = [
    "Mary",
    "John",
    "Tom",
    "James",
    "Dan",
    "Sam",
    "Paul",
    "David",
    "Mark",
    "Anna",
    "Sarah",
    "Kate",
    "Emma",
    "Laura",
    "Peter",
    "Simon",
    "Jack",
    "Alex",
    "Lucy",
    "Alice",
    "Jane",
    "Henry",
    "George",
    "Frank",
    "Ruth",
    "Helen",
    "Max",
    "Adam",
    "Carl",
    "Eric",
]
PLACES = ["store", "park", "school", "office", "garden", "station", "market", "library", "museum", "hospital"]
THINGS = ["book", "drink", "ring", "letter", "ball", "key", "phone", "gift", "hat", "basket"]
STORIES = (
    "When {a} and {b} went to the {place}, {s} gave a {thing} to",
    "Then {a} and {b} had a long talk at the {place}. Afterwards {s} handed a {thing} to",
    "While {a} and {b} were working at the {place}, {s} passed a {thing} to",
    "{a} and {b} met near the {place}, and {s} brought a {thing} for",
)
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Germany": "Berlin", "Spain": "Madrid", "Russia": "Moscow", "China": "Beijing", "Egypt": "Cairo",
    "Greece": "Athens", "England": "London", "Austria": "Vienna", "Ireland": "Dublin", "Portugal": "Lisbon", "Cuba": "Havana", "Norway": "Oslo",
    "Poland": "Warsaw", "Sweden": "Stockholm", "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad", "Kenya": "Nairobi", "Peru": "Lima",
    "Canada": "Ottawa", "Finland": "Helsinki", "Hungary": "Budapest", "Denmark": "Copenhagen", "Belgium": "Brussels", "India": "Delhi", "Lebanon": "Beirut",
    "Chile": "Santiago", "Thailand": "Bangkok", "Ukraine": "Kiev", "Switzerland": "Bern", "Scotland": "Edinburgh", "Syria": "Damascus", "Libya": "Tripoli",
}  # fmt: skip
EVENTS = ["war", "project", "campaign", "siege", "drought", "journey", "strike", "trial", "expedition", "marriage"]
WORDS = [
    "apple",
    "river",
    "stone",
    "cloud",
    "horse",
    "table",
    "green",
    "paper",
    "light",
    "house",
    "bread",
    "music",
    "water",
    "glass",
    "chair",
    "night",
    "world",
    "heart",
    "dream",
    "spring",
    "gold",
    "fire",
    "tree",
    "road",
    "ship",
    "bird",
    "king",
    "rain",
    "salt",
    "wind",
    "door",
    "hand",
    "sand",
    "wood",
    "film",
    "snow",
]


def counter(tokenizer: Any) -> CountTokens:
    """What counts a tokenizer's tokens."""
    from raysp.models.loading import following

    return lambda text: len(following(tokenizer, text))


def make(task: str, size: int, seed: int, count_tokens: CountTokens, excluding: Collection[str] = ()) -> list[Question]:
    """`size` distinct questions of a task, none with an excluded prompt. UserError when the words that are one token each do not make so many."""
    rng, found = random.Random(seed), dict[str, Question]()  # noqa: S311  prompts, not secrets
    maker = TASKS[task](rng, lambda word: count_tokens(f" {word}") == 1)
    in_vain = 0
    while in_vain < IN_VAIN:
        question, in_vain = next(maker), in_vain + 1
        if question.prompt in found or question.prompt in excluding or not _lines_up(question, count_tokens):
            continue
        found[question.prompt], in_vain = question, 0
        if len(found) == size:
            return list(found.values())
    if not found:
        raise UserError("task", task, "has no counterfactual of as many tokens as its prompt for this model", "use another model, or prompts of your own")
    problem = f"is more than task {task} has prompts of words that are one token each, with counterfactuals of as many tokens"
    raise UserError("task_size", size, problem, f"give at most {len(found)}")


def _lines_up(question: Question, count_tokens: CountTokens) -> bool:
    return question.counterfactual is not None and count_tokens(question.counterfactual) == count_tokens(question.prompt)


def _some(words: Sequence[str], fits: Fits, least: int, task: str) -> list[str]:
    """The words that fit; UserError for too few."""
    fitting = [word for word in words if fits(word)]
    if len(fitting) < least:
        raise UserError(
            "task", task, f"needs words of one token, and of its {len(words)} the model has {len(fitting)}", "use another model, or prompts of your own"
        )
    return fitting


def indirect_objects(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """Who received something: the one of two persons who did not give it (Wang et al., ICLR 2023). In the counterfactual a third person gives."""
    names = _some(NAMES, fits, 4, "ioi")
    while True:
        one, other, third = rng.sample(names, 3)
        first, second = rng.sample([one, other], 2)
        story, place, thing = rng.choice(STORIES), rng.choice(PLACES), rng.choice(THINGS)

        def told(giver: str, how: tuple[str, str, str, str, str] = (story, first, second, place, thing)) -> str:
            return how[0].format(a=how[1], b=how[2], s=giver, place=how[3], thing=how[4])

        yield Question(told(other), f" {one}", f" {other}", told(third))


def facts(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """The capital of a country, after one example; the foil is the example's, which copying would give. The counterfactual asks for a third country."""
    known = [(country, CAPITALS[country]) for country in CAPITALS if fits(country) and fits(CAPITALS[country])]
    _some([country for country, _ in known], fits, 4, "facts")
    while True:
        shown, asked, other = rng.sample(known, 3)
        begin = f"The capital of {shown[0]} is {shown[1]}. The capital of "
        yield Question(f"{begin}{asked[0]} is", f" {asked[1]}", f" {shown[1]}", f"{begin}{other[0]} is")


def greater_than(rng: random.Random, fits: Fits) -> Iterator[Question]:  # noqa: ARG001  years are of several tokens, as many in every prompt that is taken
    """The year in which something ended, after the year in which it began (Hanna et al., NeurIPS 2023); the foil is a year before."""
    while True:
        century, began = rng.randint(11, 18), rng.randint(21, 78)
        event = rng.choice(EVENTS)

        def told(year: int, how: tuple[str, int] = (event, century)) -> str:
            return f"The {how[0]} lasted from the year {how[1]}{year:02d} to the year {how[1]}"

        yield Question(told(began), f"{rng.randint(began + 11, 99):02d}", f"{rng.randint(2, began - 11):02d}", told(rng.randint(1, 9)))


def induction(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """What follows a word that has come before (Olsson et al., 2022): unrelated words, then their beginning again; in the counterfactual another word repeats."""
    words = _some(WORDS, fits, 12, "induction")
    while True:
        row = rng.sample(words, 8)
        at = rng.randrange(5, 8)
        other = rng.choice([number for number in range(1, 8) if number != at])
        yield Question(_listed([*row, row[at - 1]]), f" {row[at]}", f" {row[other]}", _listed([*row, row[other - 1]]))


def _listed(words: Sequence[str]) -> str:
    return " " + " ".join(words)


TASKS: dict[str, Callable[[random.Random, Fits], Iterator[Question]]] = {
    "ioi": indirect_objects,
    "facts": facts,
    "greater-than": greater_than,
    "induction": induction,
}
