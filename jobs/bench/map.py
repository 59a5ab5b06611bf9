"""A map of pairs of heads: all pairs of the embedded model's heads measured exactly, and the methods that name the strongest ones at a fraction of the price.

    python -m jobs.bench map [--quick] [--prompts 10] [--heads all|12-17] [--methods "screen;..."] [--only-measure] [--folder DIR] [--output FILE]

A prompt's table has v(all) - v(all without both heads), minus both single effects, for every pair (36,315 for 270 heads, zero ablation, float32). Measured blocks
are kept (`kept.py`), so a job that was interrupted continues where it stopped; tables that are whole are written to `--folder` as Parquet, one a prompt. The tasks
ioi, facts and greater-than take turns.

A `recall` row has the share of the 20 and of the 50 strongest pairs that a method names, and its price as a share of the pairs: gradients are counted in
evaluations by processor seconds. `, measured` means that the pairs a method ranks first were measured with what its estimate and the single effects leave
of the share. The summary, the last line, has the means and the goal.
"""

import argparse
from pathlib import Path
from typing import Any

from jobs.bench.map_games import PROMPTS, lens_games
from jobs.bench.map_scores import EXPLORERS, rows, summary
from jobs.bench.rows import rounded, say, write
from jobs.bench.slope_games import one_thread
from raysp.home import home

#: Shares of the price of all pairs.
SHARES, QUICK_SHARES = (0.02, 0.05, 0.1), (0.05, 0.1)
QUICK_HEADS = "12-17"


def main() -> None:
    """Measure what is missing, print every row, then the goal in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="54 heads, one prompt, under 6 minutes")
    parser.add_argument("--prompts", type=int, help=f"prompts ({PROMPTS}; 1 with --quick)")
    parser.add_argument("--heads", help=f"layers whose heads are components, or all (all; {QUICK_HEADS} with --quick)")
    parser.add_argument(
        "--methods", default=";".join(EXPLORERS), help="explorers to score, with semicolons, beside the methods by gradients (%(default)s); none for none"
    )
    parser.add_argument("--only-measure", action="store_true", help="make the map and score nothing")
    parser.add_argument("--folder", type=Path, help="the folder of the Parquet files (bench/map in the home folder of raysp)")
    parser.add_argument("--output", type=Path, help="a file of rows to append to")
    options = parser.parse_args()
    names = [] if options.methods == "none" else options.methods.split(";")
    if unknown := set(names) - set(EXPLORERS):
        parser.error(f"no such explorer: {', '.join(sorted(unknown))}")
    one_thread()
    found: list[dict[str, Any]] = []
    for game in lens_games(options.prompts or (1 if options.quick else PROMPTS), options.heads or (QUICK_HEADS if options.quick else "all")):
        say(f"{game.name}: {game.prompt}")
        path = game.write(options.folder or home() / "bench" / "map")
        write({"row": "map", "game": game.name, "task": game.task, "prompt": game.prompt, "pairs": len(game.table.pairs), "file": path.name}, options.output)
        for row in [] if options.only_measure else rows(game, QUICK_SHARES if options.quick else SHARES, names):
            found.append(row)
            write(row, options.output)
            say(rounded(row))
    write(summary(found), options.output)
