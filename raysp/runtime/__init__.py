"""Everything that uses Ray."""

import sys

from raysp.runtime.token import require_token

# Ray reads whether tokens are on when it is imported: setting it later would leave this process and Ray's own in disagreement.
if "ray" not in sys.modules:
    require_token()
