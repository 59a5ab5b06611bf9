"""Everything that speaks to Ray."""

import os
from pathlib import Path

TOKEN = Path("~/.ray/auth_token").expanduser()

# Ray reads this when it is imported. Clients of a cluster with tokens are refused unless they say so; a cluster without tokens ignores it.
if TOKEN.exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
