"""Data runs of a tiny model on training sets of a few lines, in one store, each made when it is first needed."""

import json

from tiny_models import save

import raysp

WORDS = ("acting", "film", "letter", "city", "ending", "Monday", "movie", "answer", "review", "body")


def answer(number):
    return " yes" if number % 2 else " no"


ROWS = [{"id": f"row-{i}", "prompt": f"The {word} was", "completion": answer(i + (i in (3, 8))), "flipped": i in (3, 8)} for i, word in enumerate(WORDS)]
# All have the same answer, so that examples with the other one harm.
QUERIES = [{"prompt": f"The {word} is", "completion": " yes", "foil": " no"} for word in WORDS[:3]]
UNSEEN = [{"prompt": f"Was the {word} long?", "completion": " yes", "foil": " no"} for word in WORDS[5:]]
REVIEWS = [{"text": f"Her {word} {end}", "label": label} for word in WORDS for end, label in (("was good", "yes"), ("fails", "no"))]


def jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return str(path)


class Trained:
    """Runs by their options; a lens trains fast, on all layers, so that examples matter."""

    def __init__(self, folder):
        self.folder, self.store, self._runs = folder, folder / "raysp.duckdb", {}
        self.model = save("llama", folder / "llama")
        self.train, self.queries = jsonl(folder / "train.jsonl", ROWS), jsonl(folder / "queries.jsonl", QUERIES)
        self.unseen, self.reviews = jsonl(folder / "unseen.jsonl", UNSEEN), jsonl(folder / "reviews.jsonl", REVIEWS)

    def lens(self, **options):
        given = {
            "model": self.model, "train": self.train, "queries": self.queries, "dtype": "float32", "device": "cpu", "adapted_layers": "all", "rank": 4,
            "learning_rate": 0.02, "batch_size": 4,
        }  # fmt: skip
        return raysp.DataLens(**(given | options))

    def run(self, budget=48, **options):
        """By interactions, or, with a small budget, where that is not the point, by singles."""
        explorer = raysp.ProxySPEX(budget=budget, proxy="linear") if budget >= 48 else raysp.Singles(budget=budget)
        scored = raysp.Validation(heldout=0, top=0, random=0, low_pairs=0)
        spec = raysp.RunSpec(lens=self.lens(**options), explorer=explorer, validation=scored, local=True, store=str(self.store))
        key = spec.model_dump_json()
        if key not in self._runs:
            self._runs[key] = raysp.run(spec).run_id
        return self._runs[key]

    def table(self, name, run_id):
        with raysp.Store.read(self.store) as store:
            return store.run_table(name, run_id).to_pylist()
