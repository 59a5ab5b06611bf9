"""Games and other processes for the tests of the store."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from raysp.game import Component, GameInfo, fingerprint


def game(n=8, name="test", labels=None):
    description = {"lens": "function", "name": name, "n": n, "model": "tiny", "dtype": "float32"}
    components = tuple(Component(i, labels[i] if labels else f"w{i}", "word", 3 * i, 3 * i + 2, 1) for i in range(n))
    return GameInfo(fingerprint(description), components, description, source=" ".join(c.label for c in components))


def begin(store, run_id="run-1", info=None, **options):
    return store.start_run(run_id, '{"seed": 0}', info or game(), lens="feature", explorer="screen", seed=0, **options)


def python(code, *arguments):
    """Another Python process, with the code dedented; its stdin and stdout are pipes."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
