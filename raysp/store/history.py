"""Earlier runs about the same parts of the same model, or of the same input: their answers to other questions are a prior for the next one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import duckdb

from raysp.spectral.fourier import FourierSurrogate

Cursor = duckdb.DuckDBPyConnection

#: What the descriptions of two games have in common if their components are the same and are ablated in the same way, by lens.
SAME = {"mechanistic": ("weights", "parts", "ablation", "clamp"), "feature": ("weights", "input_ids", "spans", "ablation")}
#: The most runs used, the latest first; their least R²; and the number of their strongest terms that are used.
MOST_RUNS, LEAST_R2, TERMS = 8, 0.2, 300
#: Runs among which they are looked for.
SEARCHED = 200

EARLIER = """
WITH this AS (
  SELECT game_id, lens, n, set_name, (SELECT min(coalesce(o.submitted, o.started)) FROM runs o WHERE o.game_id = r.game_id) AS since
  FROM runs r WHERE run_id = $run
)
SELECT r.run_id, r.game_id, g.description
FROM runs r JOIN games g USING (game_id), this t
WHERE r.status = 'done' AND r.finished < t.since AND r.game_id <> t.game_id AND r.lens = t.lens AND r.n = t.n AND r.explorer = 'proxyspex'
  AND r.r2 > $least AND (r.set_name IS NULL OR r.set_name IS DISTINCT FROM t.set_name)
ORDER BY r.finished DESC, r.run_id LIMIT $searched
"""


@dataclass(frozen=True)
class Earlier:
    """An earlier run, and the strongest terms of its surrogate."""

    run_id: str
    surrogate: FourierSurrogate


def earlier_runs(cur: Cursor, run_id: str) -> list[str]:
    """The ids of the runs whose answers are a prior for this one, the latest first.

    They had ended when its question was first asked, so a run that is resumed or asked again has the same ones; a game counts once; and runs of the same set are
    left out, because those that run at the same time would depend on which ends first.
    """
    rows = cur.execute("SELECT lens, description FROM runs JOIN games USING (game_id) WHERE run_id = ?", [run_id]).fetchall()
    if not rows or rows[0][0] not in SAME:
        return []
    lens, described = rows[0]
    common = _common(lens, described)
    found: dict[int, str] = {}
    for other, game_id, description in cur.execute(EARLIER, {"run": run_id, "least": LEAST_R2, "searched": SEARCHED}).fetchall():
        if game_id not in found and _common(lens, description) == common:
            found[game_id] = str(other)
    return list(found.values())[:MOST_RUNS]


def _common(lens: str, description: str) -> list[Any]:
    named = json.loads(description)
    return [named.get(name) for name in SAME[lens]]


def strongest(surrogate: FourierSurrogate) -> FourierSurrogate:
    """Its strongest terms alone, without tails and points."""
    return FourierSurrogate(surrogate.sets, surrogate.coefficients, keep_probability=surrogate.keep_probability).strongest(TERMS)
