"""Everything that speaks to Ray."""

import os
import sys
from pathlib import Path

TOKEN = Path("~/.ray/auth_token").expanduser()

# Clients of a cluster with tokens are refused unless they say so; a cluster without tokens ignores it. Ray reads the mode when it is imported:
# set any later, its processes and this one would disagree.
if TOKEN.exists() and "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
