"""Contexts of about twenty sentences with a question and a short answer, made from templates: facts that hold the answer, and distractors.

Contexts are the same in every process. Forms and kinds of answers take turns, so that any number of first contexts has all of them about equally often.
"""

from dataclasses import dataclass
from random import Random

#: How a context holds its answer: in one sentence; in two that cover for each other; in two of which both are needed; in two needed ones, the second of which is said twice.
FORMS = ("once", "twice", "two-hop", "two-hop-twice")
#: Numbers of sentences, of sentences that say the same of others, and of those that say something else of the one asked about.
LENGTHS, ALIKE, ASIDE = range(18, 23), range(4, 8), range(2, 5)
PEOPLE = (
    "Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hassan", "Irene", "Jakob", "Karin", "Luis", "Marta", "Nadia", "Oscar", "Paula", "Rosa",
    "Simon", "Tessa", "Victor", "Wanda", "Yusuf",
)  # fmt: skip
RELATIONS = ("sister", "neighbour", "teacher", "cousin", "partner")


@dataclass(frozen=True)
class Kind:
    """A kind of answer: a question about somebody, how its answer begins, two ways to state it, and what the answer may be."""

    question: str
    begins: str
    statements: tuple[str, str]
    answers: tuple[str, ...]


KINDS = {
    "city": Kind(
        "Where does {who} live?",
        "{who} lives in the city of",
        ("{who} lives in {what}.", "The flat of {who} is in {what}."),
        ("Lisbon", "Oslo", "Vienna", "Madrid", "Prague", "Athens", "Dublin", "Warsaw", "Rome", "Paris"),
    ),
    "animal": Kind(
        "Which animal does {who} have?",
        "{who} has a",
        ("{who} has a {what}.", "{who} feeds a {what} every day."),
        ("cat", "dog", "parrot", "rabbit", "snake", "turtle", "goat", "duck", "horse", "monkey"),
    ),
    "colour": Kind(
        "What colour is the car of {who}?",
        "The car of {who} is",
        ("The car of {who} is {what}.", "{who} drives a {what} car."),
        ("red", "blue", "green", "yellow", "white", "black", "orange", "silver", "purple", "brown"),
    ),
    "instrument": Kind(
        "Which instrument does {who} play?",
        "{who} plays the",
        ("{who} plays the {what}.", "{who} practises the {what} on Sundays."),
        ("piano", "violin", "guitar", "flute", "trumpet", "cello", "harp", "drums", "organ", "clarinet"),
    ),
    "dish": Kind(
        "What does {who} like to eat?",
        "{who} likes to eat",
        ("{who} likes to eat {what}.", "{who} always orders {what}."),
        ("soup", "fish", "rice", "pasta", "bread", "cheese", "salad", "beef", "eggs", "beans"),
    ),
    "job": Kind(
        "What is the job of {who}?",
        "{who} works as a",
        ("{who} works as a {what}.", "{who} became a {what} years ago."),
        ("doctor", "baker", "lawyer", "farmer", "painter", "nurse", "pilot", "teacher", "tailor", "judge"),
    ),
    "number": Kind(
        "How many children does {who} have?",
        "The number of children of {who} is",
        ("{who} has {what} children.", "The {what} children of {who} are at school."),
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"),
    ),
    "month": Kind(
        "When is the birthday of {who}?",
        "The birthday of {who} is in",
        ("The birthday of {who} is in {what}.", "{who} was born in {what}."),
        ("January", "February", "March", "April", "May", "June", "July", "August", "October", "December"),
    ),
}
FILLERS = (
    "The market opens at six.", "It rained all week.", "The bridge was closed.", "The square was crowded.", "The bakery is next door.", "A bus passes the school.",
    "The river is low.", "The library is upstairs.", "The roof was damaged.", "The mayor gave a speech.", "The museum is small.", "The trains are late.",
    "Two shops are empty.", "The lake is frozen.", "A storm felled the oak.", "The paper comes on Fridays.",
)  # fmt: skip


@dataclass(frozen=True)
class QuestionedContext:
    """Sentences, the places of those that hold the answer, a question, and the answer (with a space before it) after its beginning."""

    name: str
    sentences: tuple[str, ...]
    holding: tuple[int, ...]
    question: str
    begins: str
    answer: str

    @property
    def text(self) -> str:
        """The sentences in a row."""
        return " ".join(self.sentences)


def contexts(count: int) -> list[QuestionedContext]:
    """The first `count` contexts."""
    return [context(number) for number in range(count)]


def context(number: int) -> QuestionedContext:
    """The context with a number, from 0 on."""
    rng = Random(number)  # noqa: S311  texts of a benchmark
    form, name = FORMS[number % len(FORMS)], list(KINDS)[(number + number // len(KINDS)) % len(KINDS)]
    kind, people, answers = KINDS[name], rng.sample(PEOPLE, len(PEOPLE)), rng.sample(KINDS[name].answers, len(KINDS[name].answers))
    who, owner, answer = people[0], people[1], answers[0]
    asked, holding = who, []
    if form.startswith("two-hop"):
        relation = rng.choice(RELATIONS)
        asked, holding = f"the {relation} of {who}", [f"The {relation} of {who} is called {owner}."]
    else:
        owner = who
    said = rng.sample(kind.statements, 2)
    holding += [text.format(who=owner, what=answer) for text in (said if form in {"twice", "two-hop-twice"} else said[:1])]
    alike = [rng.choice(kind.statements).format(who=other, what=what) for other, what in zip(people[2:], answers[1 : 1 + rng.choice(ALIKE)], strict=False)]
    others = rng.sample([other for key, other in KINDS.items() if key != name], rng.choice(ASIDE))
    aside = [rng.choice(other.statements).format(who=rng.choice((who, owner)), what=rng.choice(other.answers)) for other in others]
    sentences = [*holding, *alike, *aside]
    sentences += rng.sample(FILLERS, rng.choice(LENGTHS) - len(sentences))
    rng.shuffle(sentences)
    places = tuple(sorted(sentences.index(text) for text in holding))
    return QuestionedContext(
        f"{number:03}-{form}-{name}", tuple(sentences), places, kind.question.format(who=asked), _sentence(kind.begins.format(who=asked)), f" {answer}"
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
