"""Generated prompt sets with known answers: the effect of a component on a task is its effect on these prompts.

Each prompt has a target, a foil that is equally likely for a model without the capability, and a counterfactual of the same structure with another answer.
Words are drawn from lists, restricted to those that are a single token of the model's tokenizer, and a counterfactual has as many tokens as its prompt.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raysp.errors import UserError

#: Consecutive draws without a new question after which a task is taken to be exhausted.
IN_VAIN = 5000

CountTokens = Callable[[str], int]
"""The number of tokens of a text that follows another."""
Fits = Callable[[str], bool]
"""Whether a word behind a blank is a single token."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, the target answer (None: the model's own), the foil it is compared with, and a prompt that has another answer."""

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
    """A function that counts the tokens of a text."""
    from raysp.models.loading import following

    return lambda text: len(following(tokenizer, text))


def make(task: str, size: int, seed: int, count_tokens: CountTokens, excluding: Collection[str] = ()) -> list[Question]:
    """`size` distinct questions of a task without the excluded prompts. UserError if the words that are single tokens do not yield that many."""
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
        raise UserError("task", task, "has no counterfactual with as many tokens as its prompt for this model", "use another model, or prompts of your own")
    problem = f"is more than the {len(found)} prompts of task {task} whose words are single tokens and whose counterfactuals have as many tokens"
    raise UserError("task_size", size, problem, f"give at most {len(found)}")


def _lines_up(question: Question, count_tokens: CountTokens) -> bool:
    return question.counterfactual is not None and count_tokens(question.counterfactual) == count_tokens(question.prompt)


def _some(words: Sequence[str], fits: Fits, least: int, task: str) -> list[str]:
    """The words that fit. UserError if they are too few."""
    fitting = [word for word in words if fits(word)]
    if len(fitting) < least:
        raise UserError(
            "task", task, f"needs single-token words, and only {len(fitting)} of its {len(words)} words are", "use another model, or prompts of your own"
        )
    return fitting


def indirect_objects(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """Indirect object identification: of two people, the recipient is the one who does not give (Wang et al., ICLR 2023). In the counterfactual, a third gives."""
    names = _some(NAMES, fits, 4, "ioi")
    while True:
        one, other, third = rng.sample(names, 3)
        first, second = rng.sample([one, other], 2)
        story, place, thing = rng.choice(STORIES), rng.choice(PLACES), rng.choice(THINGS)

        def told(giver: str, how: tuple[str, str, str, str, str] = (story, first, second, place, thing)) -> str:
            return how[0].format(a=how[1], b=how[2], s=giver, place=how[3], thing=how[4])

        yield Question(told(other), f" {one}", f" {other}", told(third))


def facts(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """The capital of a country, after one example; the foil is the capital in the example, which copying gives. The counterfactual asks about a third country."""
    known = [(country, CAPITALS[country]) for country in CAPITALS if fits(country) and fits(CAPITALS[country])]
    _some([country for country, _ in known], fits, 4, "facts")
    while True:
        shown, asked, other = rng.sample(known, 3)
        begin = f"The capital of {shown[0]} is {shown[1]}. The capital of "
        yield Question(f"{begin}{asked[0]} is", f" {asked[1]}", f" {shown[1]}", f"{begin}{other[0]} is")


def greater_than(rng: random.Random, fits: Fits) -> Iterator[Question]:  # noqa: ARG001  years may have several tokens, equally many in every prompt
    """The year in which something ended, which is later than the year in which it began (Hanna et al., NeurIPS 2023); the foil is an earlier year."""
    while True:
        century, began = rng.randint(11, 18), rng.randint(21, 78)
        event = rng.choice(EVENTS)

        def told(year: int, how: tuple[str, int] = (event, century)) -> str:
            return f"The {how[0]} lasted from the year {how[1]}{year:02d} to the year {how[1]}"

        yield Question(told(began), f"{rng.randint(began + 11, 99):02d}", f"{rng.randint(2, began - 11):02d}", told(rng.randint(1, 9)))


def induction(rng: random.Random, fits: Fits) -> Iterator[Question]:
    """The word that followed the last word at its first occurrence (Olsson et al., 2022), in a list of unrelated words; the counterfactual repeats another word."""
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
