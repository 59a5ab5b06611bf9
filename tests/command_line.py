"""How a command of raysp ends, in this process (the fixture `cli`) or in one of its own."""

import os
import subprocess
import sys
from typing import NamedTuple


class Outcome(NamedTuple):
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


def process(*arguments, home, **variables):
    """Run the command in a process of its own, in the folder `home`, which is also raysp's home; negative codes are signals."""
    environment = {**os.environ, "RAYSP_HOME": str(home), "COLUMNS": "160", **variables}
    done = subprocess.run([sys.executable, "-m", "raysp", *arguments], capture_output=True, text=True, env=environment, check=False, cwd=home)
    return Outcome(done.returncode, done.stdout, done.stderr)
