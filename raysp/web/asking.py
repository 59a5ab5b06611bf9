"""Routes that take a question: check it, plan it, show its prompt in pieces, and submit it."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from raysp.blobs import blobs_from, digest
from raysp.errors import UserError
from raysp.runs.parts import PlannedRun, new_run_ids, numbered, parts, set_name
from raysp.runs.state import DEFAULT_PRIORITY, LEAST_PRIORITY, MOST_PRIORITY, RunRequest, RunState, spec_json
from raysp.specs.documents import parse_document
from raysp.specs.lenses import FeatureLens
from raysp.specs.policy import check
from raysp.specs.prompts import check_prompt
from raysp.specs.run import RunSpec, run_spec
from raysp.web.looking import standing, state_row
from raysp.web.problems import Problem, json_response
from raysp.web.schemas import Checked, Planned, Previewed, Submitted
from raysp.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["questions"])

#: Fields of a spec that are the service's to choose.
CHOSEN_HERE = ("store", "local")
#: Runs that one request may ask for.
MOST_RUNS = 1_000
YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
PriorityOf = Annotated[int, Query(ge=LEAST_PRIORITY, le=MOST_PRIORITY, description="The share of the cluster doubles with each step.")]
KeyOf = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200, description="The same key again asks for nothing more.")]
_SPEC = {"type": "object", "description": "A spec as in YAML files: `lens`, `explorer`, `validation`, `seed`, `name`.", "additionalProperties": True}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {
                            "type": "object",
                            "required": ["spec"],
                            "properties": {
                                "spec": _SPEC,
                                "content": {
                                    "type": "object",
                                    "description": "Files that the spec names as `blob:SHA256:PATH`: base64 by SHA-256.",
                                    "additionalProperties": {"type": "string", "contentEncoding": "base64"},
                                },
                            },
                        },
                        {**_SPEC, "required": ["lens"]},
                    ]
                }
            },
            "application/yaml": {"schema": {"type": "string", "description": "A spec file."}},
        },
    }
}


@dataclass(frozen=True)
class Question:
    """A spec that the service allows, and the content of the files that it refers to."""

    spec: RunSpec
    content: Mapping[str, bytes]

    def parts(self) -> list[PlannedRun]:
        """The runs that it asks for. UserError for a data set that cannot be read, and for too many rows."""
        with blobs_from(self.content.get):
            found = parts(self.spec)
        if len(found) > MOST_RUNS:
            raise UserError("examples", len(found), "rows are too many for one request", f"set limit to at most {MOST_RUNS:,}")
        for part in found:
            if isinstance(part.spec.lens, FeatureLens):
                check_prompt(part.spec.lens)
        return found


async def question_of(request: Request, site: Site) -> Question:
    """The question in the body of a request, as it may be asked here: no file of this machine, and the store of the service. UserError or Problem otherwise."""
    body = await request.body()
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media not in ("application/json", *YAML):
        raise Problem(415, UserError("content-type", media, "is not supported", f"send application/json or {YAML[0]}"))
    return await run_in_threadpool(_question, body, media in YAML, site)


def _question(body: bytes, is_yaml: bool, site: Site) -> Question:
    fields, content = _yaml_fields(body) if is_yaml else _json_fields(body)
    for name in CHOSEN_HERE:
        fields.pop(name, None)
    spec = run_spec(fields)
    check(site.settings.policy, spec)
    return Question(spec.model_copy(update={"store": str(site.settings.store)}), content)


def _yaml_fields(body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        return parse_document(body.decode("utf-8"), where="spec")[0], {}
    except UnicodeDecodeError:
        raise UserError("body", None, "is not UTF-8 text", "send the spec in UTF-8") from None


def _json_fields(body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, UserError("body", None, f"is not valid JSON ({error})", "send a spec as JSON, or as application/yaml")) from None
    given: Any = document.get("spec", document) if isinstance(document, dict) else None
    if not isinstance(given, dict):
        raise UserError("body", None, "is not a spec", 'send {"spec": {"lens": {...}}}, or the spec itself')
    # Through YAML's checks: what JSON can write and the store cannot, such as half of a surrogate pair, is an error with a line.
    fields = parse_document(yaml.safe_dump(given, allow_unicode=True), where="spec")[0] if given else {}
    return fields, _content(document.get("content") if "spec" in document else None)


def _content(given: Any) -> dict[str, bytes]:
    if given is None:
        return {}
    try:
        found = {str(name): base64.b64decode(text, validate=True) for name, text in given.items()}
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise UserError("content", None, "is not base64 by SHA-256", 'send {"content": {"SHA256": "BASE64"}}') from None
    wrong = next((name for name, data in found.items() if digest(data) != name), None)
    if wrong is not None:
        raise UserError("content", wrong, "is not the SHA-256 of what it stands for", "send the content under its SHA-256 in hex")
    return found


@router.post("/check", response_model=Checked, summary="Whether a question can be asked", openapi_extra=BODY)
async def check_question(request: Request, site: SiteOf) -> Response:
    """Validate a question, and return it with every default filled in. Loads nothing and measures nothing."""
    question = await question_of(request, site)
    planned = await run_in_threadpool(question.parts)
    spec: dict[str, Any] = json.loads(spec_json(question.spec.model_copy(update={"store": None})))
    return json_response({"spec": spec, "runs": len(planned), "yaml": yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100)})


@router.post("/plan", response_model=Planned, summary="What a question would cost", openapi_extra=BODY)
async def plan(request: Request, site: SiteOf) -> Response:
    """Sizes and costs, estimated from a few evaluations that the run would request anyway and that are stored."""
    from raysp.runs.plan import plan_text

    question = await question_of(request, site)
    planned = await run_in_threadpool(question.parts)
    request_of_first = await run_in_threadpool(_request, planned[0], question, "plan", None, DEFAULT_PRIORITY)
    found = await run_in_threadpool(site.desk.plan, request_of_first.spec, request_of_first.content)
    return json_response({**found, "runs": len(planned), "text": plan_text(found)})


@router.post("/preview", response_model=Previewed, summary="A prompt in pieces, and what the model would say next", openapi_extra=BODY)
async def preview(request: Request, site: SiteOf) -> Response:
    """The components of a feature lens's prompt, and the tokens that the model finds most probable after it, from which to choose target and foil."""
    question = await question_of(request, site)
    lens = question.spec.lens
    if not isinstance(lens, FeatureLens):
        raise UserError("lens", lens.kind, "has no prompt to cut into pieces", "use the feature lens")
    return json_response(await run_in_threadpool(site.desk.preview, lens, question.content))


@router.post(
    "/runs",
    response_model=Submitted,
    status_code=201,
    summary="Submit a question",
    openapi_extra=BODY,
    responses={200: {"description": "This key was used before, for this question."}},
)
async def submit(request: Request, site: SiteOf, priority: PriorityOf = DEFAULT_PRIORITY, key: KeyOf = None) -> Response:
    """Queue the runs of a question, one for each of its examples. With an `Idempotency-Key`, asking again returns the runs of the first time."""
    question = await question_of(request, site)
    planned = await run_in_threadpool(question.parts)
    return await run_in_threadpool(_submit, site, question, planned, priority, key)


def _submit(site: Site, question: Question, planned: list[PlannedRun], priority: int, key: str | None) -> Response:
    ids = new_run_ids(len(planned)) if key is None else _ids_of(key, len(planned))
    requests = [_request(part, question, run_id, set_name(question.spec), priority) for part, run_id in zip(planned, ids, strict=True)]
    repeated = key is not None and _is_repeated(site, requests)
    if not repeated:
        site.desk.submit(requests)
        known = site.tail.state
        site.tail.note(RunState(each.run_id, each.spec.name, "queued", "running", priority, version=1) for each in requests if known(each.run_id) is None)
    told = [state_row(standing(site, run_id)) for run_id in ids]
    headers = {"location": f"/api/v1/runs/{ids[0]}"} | ({"idempotent-replay": "true"} if repeated else {})
    labels = [part.label for part in planned]
    return json_response({"runs": [{"label": label, **row} for label, row in zip(labels, told, strict=True)]}, 200 if repeated else 201, **headers)


def _request(part: PlannedRun, question: Question, run_id: str, set_of: str | None, priority: int) -> RunRequest:
    """The request of one run, with the content that its spec refers to. UserError for content that is missing."""
    with blobs_from(question.content.get):
        request = RunRequest(part.spec, run_id, set_of, priority).with_content()
    needed = {name: data for name, data in question.content.items() if name in spec_json(request.spec)}
    return RunRequest(request.spec, run_id, set_of, priority, {**needed, **request.content})


def _ids_of(key: str, count: int) -> list[str]:
    """The ids of the runs that a key stands for: the same whenever it is used, so that nothing has to remember it."""
    return numbered(f"key-{hashlib.sha256(key.encode()).hexdigest()[:16]}", count)


def _is_repeated(site: Site, requests: list[RunRequest]) -> bool:
    """Whether these runs were asked for before. Problem 409 if the key was used for another question."""
    if not site.settings.store.exists():
        return False
    with site.readings.reading(site.since()) as store:
        known = {row["run_id"] for row in store.run_states()}
        family = requests[0].run_id.rpartition("-")[0] if len(requests) > 1 else requests[0].run_id
        related = {run_id for run_id in known if run_id == family or run_id.startswith(f"{family}-")}
        if not related:
            return False
        same = related == {each.run_id for each in requests} and all(
            json.loads(spec_json(run_spec(store.run_row(each.run_id)["spec"]))) == json.loads(spec_json(each.spec)) for each in requests
        )
    if not same:
        raise Problem(409, UserError("Idempotency-Key", None, "was used for another question", "send a new key"))
    return True
