"""Questions as they are sent: the spec as it is asked here and now, and the content of the files that it names."""

import base64
import json
from typing import Any

from raysp.datasets.content import portable
from raysp.errors import UserError
from raysp.runs.state import spec_json
from raysp.specs.run import RunSpec, resolve


def body(spec: RunSpec) -> dict[str, Any]:
    """The body of a request that asks a question. UserError for a file that cannot be read, and for what cannot be sent: a Python function, a store of one's own."""
    if spec.lens.own_code is not None:
        raise UserError("lens", spec.lens.kind, "is a Python function, which is not sent to a service", "use raysp.run, here or on a Ray cluster")
    asked, content = portable(resolve(spec.model_copy(update={"store": None, "local": False})))
    fields = json.loads(spec_json(asked))
    return {"spec": fields, "content": {digest: base64.b64encode(data).decode("ascii") for digest, data in content.items()}}
