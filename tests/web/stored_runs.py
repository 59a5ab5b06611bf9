"""Runs that are written into the store of the service before it starts, rather than asked: a large one, a hostile one, and many that never ended."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "report"))

import model_pages
import pages

from raysp.store import Store

WORDS, INTERACTIONS, MANY = 2000, 10_000, 120


#: The ids of the runs.
LARGE, WIDE, HOSTILE, HEADS, TAILS = "large", "wide", "hostile", "three-layers", "with-tails"


def write(path):
    """Write them, the oldest of the store; `MANY` of them are the set `many`."""
    with Store.open(path) as store:
        game = pages.info(pages.words_of("one of many"), "one of many")
        for number in range(MANY):
            store.start_run(f"many-{number:03}", pages.spec(game), game, lens="feature", explorer="screen", seed=0, set_name="many")
        assert pages.large(store, WORDS, INTERACTIONS) == LARGE
        text = " ".join(f"word{number}" for number in range(WORDS))
        pages.add_run(store, WIDE, pages.info(pages.words_of(text), text), [[0, 1], [2, 3]])
        assert pages.hostile(store) == HOSTILE
        assert pages.with_tails(store) == TAILS
        assert model_pages.three_layers(store) == HEADS
