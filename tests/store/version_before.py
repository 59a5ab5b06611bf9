"""A store as the version before wrote it: the schema of migrations 1 to 4, with a run of a screening, one of a training set, and what was done with each."""

import json

import duckdb
import numpy as np

from raysp.masks import pack
from raysp.store import schema

LAST = 4
"""The last migration of that version."""
N = 4
SETS = ((), (0,), (1,), (2,), (3,), (0, 1), (0, 1, 2))
"""What the screening removed."""
VALUES = (10.0, 7.0, 8.0, 9.5, 10.0, 1.0, 0.0)

RUN = """
INSERT INTO runs (run_id, name, set_name, status, lens, explorer, model, dtype, game_id, n, seed, spec, version, started, finished, value_intact, value_empty,
                  index, r2, r2_lo, r2_hi, r2_singles, verdict, reasons, metrics, notes, diagnostics, error)
VALUES ($id, $name, NULL, 'done', $lens, 'screen', 'tiny', 'float32', $game, 4, 0, $spec, '0.1.0', $started, $started, 10, 0,
        'additivity', 0.9, 0.8, 0.95, 0.4, 'reliable', ['because'], '{}', NULL, '{"kept": [0, 1]}', NULL)
"""
WORDS = ("The", "film", "never", "fails")


def write(path):
    """The file at `path`, of schema 4."""
    with duckdb.connect(str(path)) as con:
        schema.migrate(con, path, upto=LAST)
        for game, lens in ((1, "feature"), (2, "data")):
            description = json.dumps({"lens": lens, "n": N, "model": "tiny", "dtype": "float32", "value": "margin"})
            con.execute("INSERT INTO games VALUES (?, ?, 4, ?, 'The film never fails', [])", [game, f"fingerprint-{game}", description])
            for component, label in enumerate(WORDS):
                con.execute("INSERT INTO components VALUES (?, ?, ?, 'word', 0, 3, 1, NULL, NULL)", [game, component, label])
            started = f"2026-01-0{3 - game} 12:00:00"
            spec = json.dumps({"lens": {"kind": lens}, "explorer": {"kind": "screen"}, "seed": 0})
            con.execute(RUN, {"id": f"run-{game}", "name": f"the {lens} run", "lens": lens, "game": game, "spec": spec, "started": started})
        _screening(con)
        _training_set(con)


def _screening(con):
    masks = np.ones((len(SETS), N), dtype=bool)
    for row, members in enumerate(SETS):
        masks[row, list(members)] = False
    for number, (mask, value) in enumerate(zip(pack(masks), VALUES, strict=True)):
        row = [number + 1, mask.tobytes(), value, number]
        con.execute("INSERT INTO evaluations VALUES (?, 1, ?, ?, 'run-1', 'explore', 1, ?, 8, 0.5, '2026-01-01 12:00:00')", row)
    con.execute("INSERT INTO reuses VALUES ('run-1', 'validate', 0, 0, 1)")
    con.execute("INSERT INTO spent VALUES ('run-1', 'explore', 2, 16, 1, 3)")
    for component, effect in enumerate((3.0, 2.0, 0.5, 0.0)):
        con.execute("INSERT INTO singles VALUES ('run-1', ?, ?, ?, NULL, NULL, 'removed')", [component, WORDS[component], effect])
    con.execute(
        "INSERT INTO interactions VALUES ('run-1', 1, [0, 1], 'The × film', 2, 'additivity', 4, 4, 4, true, 'synergy', 4, 4, true),"
        " ('run-1', 2, [0, 2], 'The × never', 2, 'additivity', 0.1, 0.1, 0.1, false, 'additive', 0.1, NULL, false)"
    )
    con.execute("INSERT INTO validations VALUES ('run-1', 'top', [0, 1], 'The × film', 2, 4, 4, 0, 9, 5, 'synergy')")
    con.execute("INSERT INTO heldout VALUES ('run-1', ?, 6, 7, 5.5), ('run-1', ?, 9, 7, 6)", [b"\xc0", b"\x50"])
    con.execute("INSERT INTO cross_checks VALUES ('run-1', 'gradient_x_input', 0, 'The', 0.7)")
    con.execute("INSERT INTO events VALUES ('2026-01-01 12:00:01', 'run-1', 'note', 'masked with a dash')")
    for method, value in (("interactions", 0.5), ("bettered", 0.8), ("singles", 0.4), ("singles_bettered", 0.6)):
        con.execute("INSERT INTO prunings VALUES ('run-1', 0.5, 2, ?, ?, ?, 0, 1, 8, 64, [0, 1], '2026-01-01 12:01:00')", [method, value, value])


def _training_set(con):
    con.execute("INSERT INTO queries VALUES (2, 0, 'first', 'Was it good?', 'yes', 'no')")
    con.execute("INSERT INTO examples SELECT 2, i, i, 'question ' || i, 'answer ' || i FROM range(4) r(i)")
    con.execute("INSERT INTO query_scores VALUES ('run-2', 0, 'first', 1, 0, 0.9, 0.8, 0.95, 0.4, 0.7, 0.5)")
    con.execute("INSERT INTO query_singles VALUES ('run-2', 0, 1, 'film', 0.9, NULL, NULL, 'removed'), ('run-2', 0, 2, 'never', -0.4, NULL, NULL, 'removed')")
    for metric, score in (("lds", 0.6), ("fall", 1.25), ("flipped", 0.5)):
        con.execute("INSERT INTO data_scores VALUES ('run-2', 'screen', ?, ?, 0, 2, NULL, 4, 1, 16, 2, 0.5, NULL, '2026-01-02 12:01:00')", [metric, score])
    con.execute("INSERT INTO selections VALUES ('run-2', 'drop harmful:5%', 1, 3, [0, 1, 3], 0.4, 0.6, 0.2, 0.1, 0.3, 2, NULL, '2026-01-02 12:02:00')")
