"""What the tests of deployments share: shell code is parsed by bash, and looked through by shellcheck."""

import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: `ls` of files whose names are known, and variables that another shell is to expand.
MEANT = "SC2012,SC2016"


def tool(name):
    """A program that a Python package brought along: it lies beside this interpreter, whether or not that folder is on the path."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def shell_problems(code):
    """What bash and shellcheck have against a piece of shell code."""
    parsed = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    looked = subprocess.run(
        [tool("shellcheck"), "--shell=bash", "--format=gcc", f"--exclude={MEANT}", "-"], input=code, capture_output=True, text=True, check=False
    )
    return parsed.stderr + looked.stdout + looked.stderr
