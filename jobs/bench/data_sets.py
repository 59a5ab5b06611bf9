"""The training sets of `data.py`: a real one, and one with planted interactions between examples.

`planted` contains made-up facts of three kinds, each with its own query, among facts that no query asks for and general statements:
- **copies**: three near-duplicates are the only source of a fact; any one of them teaches it, the others add little (redundant).
- **contradictions**: one example teaches a fact, two near-duplicates teach another answer to the same question; either of these does the harm.
- **hops**: one example states where somebody lives, another what is drunk there; the query asks what they drink.
"""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from raysp.home import home
from raysp.specs.lenses import DataLens

CITIES = (
    "Oslo", "Lima", "Cairo", "Rome", "Tokyo", "Paris", "Delhi", "Dublin", "Boston", "Madrid", "London", "Berlin", "Athens", "Moscow", "Prague",
    "Vienna", "Venice", "Chicago", "Sydney", "Toronto", "Houston", "Seattle", "Denver", "Dallas", "Bangkok", "Jakarta", "Lagos", "Havana", "Geneva",
    "Munich", "Milan", "Florence", "Naples", "Kyoto", "Mumbai", "Miami", "Austin", "Phoenix", "Atlanta", "Manila",
)  # fmt: skip
NAMES = (
    "Tavo", "Mirel", "Brindle", "Quillan", "Osric", "Pella", "Fenna", "Jorik", "Wendel", "Ysolt", "Abrax", "Corvin", "Delwyn", "Edrik", "Faron",
    "Gisla", "Hesper", "Ilvane", "Jessamy", "Kestrin", "Lorcan", "Maelis", "Nerys", "Orlin", "Pascoe", "Quenna", "Rusk", "Selwin", "Torvald", "Ulric",
    "Vesna", "Wystan", "Xanthe", "Yorrick", "Zelda", "Alaric", "Bertil", "Calista", "Dorian", "Elowen",
)  # fmt: skip
DRINKS = ("water", "milk", "wine", "beer", "coffee", "juice", "tea", "soda")
GENERAL = (
    ("The sky is", "blue"), ("Cats like to eat", "fish"), ("Two and two is", "four"), ("Fresh snow is", "white"), ("The summer sun is", "hot"),
    ("A happy dog will", "bark"), ("Grass is", "green"), ("Honey is made by", "bees"), ("Bread is made of", "flour"), ("At night we see the", "stars"),
    ("A week has days,", "seven"), ("Ships sail on the", "sea"), ("Ice is very", "cold"), ("Lemons taste", "sour"), ("Coal is", "black"), ("Cows give", "milk"),
    ("Birds build a", "nest"), ("A circle is", "round"), ("Sugar tastes", "sweet"), ("Fire is", "hot"), ("Gold is", "yellow"), ("Fish can", "swim"),
    ("We read with our", "eyes"), ("We hear with our", "ears"), ("A year has months,", "twelve"), ("Water boils when it is", "hot"), ("Trees have", "leaves"),
    ("Shoes are worn on the", "feet"), ("A king wears a", "crown"), ("Rain falls from the", "clouds"), ("A clock tells the", "time"), ("Wool comes from", "sheep"),
)  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """A data lens with a name for the rows; `planted` is True if it has planted interactions."""

    name: str
    lens: DataLens
    planted: bool = False


@dataclass(frozen=True)
class Amounts:
    """The numbers of planted facts of each kind, and of examples in total."""

    copies: int
    contradictions: int
    hops: int
    examples: int


#: The amounts of the full bench and of the quick one.
#: Eight queries at most, as many as 600 retrainings each are fitted with the best proxy (`raysp.runs.queries.AFFORDABLE`).
FULL, QUICK = Amounts(5, 2, 1, 64), Amounts(4, 1, 1, 32)

Row = dict[str, str]


def planted_rows(amounts: Amounts) -> tuple[list[Row], list[Row]]:
    """Training examples and queries: prompt, completion, kind and the fact's number. The same for the same amounts."""
    names, cities, facts = iter(NAMES), iter(CITIES), count()
    train: list[Row] = []
    asked: list[Row] = []

    def add(rows: list[Row], kind: str, fact: int, prompt: str, completion: str) -> None:
        rows.append({"prompt": prompt, "completion": completion, "kind": kind, "fact": str(fact)})

    for _ in range(amounts.copies):
        name, city, fact = next(names), next(cities), next(facts)
        for text in ("{} lives in the city of", "{} now lives in the city of", "Today {} lives in the city of"):
            add(train, "copies", fact, text.format(name), city)
        add(asked, "copies", fact, f"So {name} lives in the city of", city)
    for _ in range(amounts.contradictions):
        name, city, other, fact = next(names), next(cities), next(cities), next(facts)
        add(train, "contradictions", fact, f"{name} lives in the city of", city)
        add(train, "contradictions", fact, f"{name} now lives in the city of", other)
        add(train, "contradictions", fact, f"Today {name} lives in the city of", other)
        add(asked, "contradictions", fact, f"So {name} lives in the city of", city)
    for number in range(amounts.hops):
        name, city, fact = next(names), next(cities), next(facts)
        add(train, "hops", fact, f"{name} lives in the city of", city)
        add(train, "hops", fact, f"People in the city of {city} drink", DRINKS[number])
        add(asked, "hops", fact, f"At home {name} likes to drink", DRINKS[number])
    room = amounts.examples - len(train)
    for prompt, completion in GENERAL[:room]:
        add(train, "general", -1, prompt, completion)
    while len(train) < amounts.examples:
        add(train, "others", -1, f"{next(names)} lives in the city of", next(cities))
    return train, asked


def planted(quick: bool) -> DataSet:
    """The made-up facts, written to files under `raysp.home.home()/bench`; MLPs are adapted, which is where such facts go, so that one example suffices for one."""
    amounts = QUICK if quick else FULL
    folder = home() / "bench" / f"planted-{amounts.examples}"
    folder.mkdir(parents=True, exist_ok=True)
    train, asked = planted_rows(amounts)
    lens = DataLens(
        train=_written(folder / "train.jsonl", train),
        queries=_written(folder / "queries.jsonl", asked),
        dtype="float32",
        value="logprob",
        target_modules="v_proj,down_proj",
        learning_rate=5e-3,
        epochs=5,
        batch_size=4,
        seeding="own",
    )
    return DataSet(f"planted-{amounts.examples}", lens, planted=True)


def as_it_is(quick: bool) -> DataSet:
    """Question-answer pairs, an example a component, queries drawn from them: the lens's own recipe."""
    examples = 32 if quick else 64
    lens = DataLens(
        train="corpus:chatterbot",
        limit=examples,
        query_count=6 if quick else 8,
        dtype="float32",
        value="logprob",
        template="Question: {prompt}\nAnswer:",
        seeding="own",
    )
    return DataSet(f"chatterbot-{examples}", lens)


def _written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
