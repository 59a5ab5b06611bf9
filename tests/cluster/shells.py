"""What the tests of deployments share: shell code is parsed by bash, and looked through by shellcheck."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: `ls` of files whose names are known, and variables that another shell is to expand.
MEANT = "SC2012,SC2016"


def shell_problems(code):
    """What bash and shellcheck have against a piece of shell code."""
    parsed = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    looked = subprocess.run(["shellcheck", "--shell=bash", "--format=gcc", f"--exclude={MEANT}", "-"], input=code, capture_output=True, text=True, check=False)
    return parsed.stderr + looked.stdout + looked.stderr
