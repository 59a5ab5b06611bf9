"""Everything that uses Ray."""

import os
import sys
from pathlib import Path

TOKEN = Path("~/.ray/auth_token").expanduser()

# A cluster with tokens refuses clients that have not turned tokens on; a cluster without them ignores the setting. Ray reads it when it is imported:
# setting it later would leave this process and Ray's own in disagreement.
if TOKEN.exists() and "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
