"""The REST interface of a running service: every route with and without the token, questions, answers in all formats, and what cannot be asked."""

import base64
import hashlib
import io
import json
import re
import time

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_runs import HEADS, LARGE, TAILS
from waiting import until

from raysp.web.looking import TABLES

#: Parameters that routes require.
NEEDED = {"/sql": {"q": "SELECT 1"}, "/compare": {"runs": f"{LARGE},{HEADS}"}}
WRONG = {"Authorization": "Bearer " + "x" * 43}


def routes(service):
    """Every method and path of the OpenAPI document, with a run in place of its parameters."""
    document = service.client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{run\}", "last", re.sub(r"\{table\}", "singles", path)).removeprefix("/api/v1")


def test_every_route_asks_for_the_token_but_health(service):
    found = list(routes(service))
    assert len(found) >= 20
    for method, path in [*found, ("GET", "/openapi.json"), ("GET", "/nothing"), ("POST", "/health")]:
        bare, wrong = (httpx.request(method, f"{service.url}/api/v1{path}", headers=headers) for headers in ({}, WRONG))
        expected = {200} if path == "/health" and method == "GET" else {405} if path == "/health" else {401}
        assert {bare.status_code, wrong.status_code} == expected, (method, path)
        assert path == "/health" or bare.json()["field"] == "token"


def test_every_route_answers_with_the_token(service, answered):
    assert answered["feature"]
    for method, path in routes(service):
        if path.endswith("/events"):
            with service.client.stream(method, path) as response:
                assert response.status_code == 200
        elif method == "GET":
            response = service.client.get(path, params=NEEDED.get(path, {}))
            assert response.status_code == 200, (path, response.text)
        else:  # without a body, or for a run that has ended
            response = service.client.request(method, path)
            assert response.status_code in (200, 400, 409, 422), (path, response.text)
            assert response.status_code == 200 or response.headers["content-type"] == "application/problem+json"


def test_pages_lead_to_the_login_without_a_session(service):
    for path in ("/", "/runs", "/runs/last", "/nothing"):
        response = httpx.get(f"{service.url}{path}", headers={"Accept": "text/html"})
        assert response.status_code == 303, path
        assert response.headers["location"].startswith("/login?next=")


def test_the_tables_of_a_run_are_the_same_in_every_format(service, answered):
    run_id = answered["feature"]
    for name in TABLES:
        path = f"/runs/{run_id}/{name}"
        told = service.client.get(path, params={"limit": 100_000}).json()
        arrow = pa.ipc.open_stream(service.client.get(path, params={"format": "arrow", "limit": 100_000}).content).read_all()
        parquet = pq.read_table(io.BytesIO(service.client.get(path, params={"format": "parquet", "limit": 100_000}).content))
        lines = service.client.get(path, headers={"Accept": "text/csv"}, params={"limit": 100_000}).text.splitlines()
        assert told["total"] == len(told["rows"]) == arrow.num_rows == parquet.num_rows
        assert arrow.equals(parquet.cast(arrow.schema))
        assert lines[0].split(",") == arrow.column_names
        if told["rows"]:
            assert list(told["rows"][0]) == arrow.column_names


def test_pages_of_a_table_are_the_table(service, answered):
    path = f"/runs/{answered['feature']}/evaluations"
    whole = service.client.get(path, params={"limit": 1000}).json()
    assert whole["next"] is None
    found, offset = [], 0
    while offset is not None:
        response = service.client.get(path, params={"limit": 7, "offset": offset})
        found += response.json()["rows"]
        offset = response.json()["next"]
        assert ('rel="next"' in response.headers.get("link", "")) == (offset is not None)
    assert found == whole["rows"]


def test_an_answer_that_has_not_changed_is_not_sent_again(service, answered):
    for path in (f"/runs/{answered['feature']}", f"/runs/{answered['feature']}/interactions", "/schema"):
        first = service.client.get(path)
        again = service.client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert service.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_same_key_asks_once_and_another_question_needs_another_key(service, answered):
    assert answered["feature"]
    key, question = {"Idempotency-Key": f"key of {time.time()}"}, service.question() | {"seed": 7}
    first = service.client.post("/runs", json=question, headers=key)
    again = service.client.post("/runs", json=question, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    (run,), (same,) = first.json()["runs"], again.json()["runs"]
    assert run["run_id"] == same["run_id"]
    assert service.client.post("/runs", json=question | {"seed": 8}, headers=key).status_code == 409
    assert service.client.get(first.headers["location"].removeprefix("/api/v1")).json()["seed"] == 7
    service.finished(run["run_id"])
    done = service.client.post("/runs", json=question, headers=key)
    assert (done.status_code, done.json()["runs"][0]["status"]) == (200, "done")


def test_a_question_brings_its_files_and_a_set_becomes_a_run_for_each_row(service):
    rows = b'{"prompt": "a very good film"}\n{"prompt": "a very bad film"}\n'
    digest = hashlib.sha256(rows).hexdigest()
    question = service.question() | {"examples": f"blob:{digest}:/nowhere/set.jsonl", "name": "two films"}
    content = {digest: base64.b64encode(rows).decode()}
    assert service.client.post("/check", json={"spec": question, "content": content}).json()["runs"] == 2
    runs = service.client.post("/runs", json={"spec": question, "content": content}).json()["runs"]
    assert [run["label"] for run in runs] == ["example 1", "example 2"]
    for run in runs:
        service.finished(run["run_id"])
    listed = service.client.get("/runs", params={"set": "two films"}).json()
    assert {row["run_id"] for row in listed["runs"]} == {run["run_id"] for run in runs}
    missing = service.client.post("/check", json=question)
    assert missing.status_code == 422
    assert "examples" in missing.json()["field"]
    wrong = service.client.post("/check", json={"spec": question, "content": {digest: base64.b64encode(rows + b"x").decode()}})
    assert "is not the SHA-256" in wrong.json()["problem"]


def test_events_tell_where_a_run_stands_until_it_has_ended(service):
    run_id = service.submit(service.question() | {"seed": 11})
    states = []
    with service.client.stream("GET", f"/runs/{run_id}/events") as stream:
        states += [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    assert states[-1]["status"] == "done"
    assert [state["version"] for state in states] == sorted({state["version"] for state in states})
    with service.client.stream("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": str(states[-1]["version"] - 1)}) as stream:
        last = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    assert last == states[-1:]
    # What has ended is in the store, and every route shows it at once.
    assert service.client.get(f"/runs/{run_id}").json()["status"] == "done"
    assert service.client.get(f"/runs/{run_id}/singles").json()["total"] == 6


def test_a_run_can_be_paused_continued_and_cancelled(service):
    run_id = service.submit(service.question(prompt=" ".join("abcdefghijklmnopqrstuvwxyz")) | {"explorer": {"kind": "proxyspex", "budget": 20_000}})
    until("a mask that is measured", lambda: (json.loads(service.client.get(f"/runs/{run_id}").json()["progress"] or "{}")).get("done"))
    paused = service.client.post(f"/runs/{run_id}/pause").json()
    assert paused.get("desired") == "paused", paused
    assert ended(service, run_id, "paused")
    continued = service.client.post(f"/runs/{run_id}/resume").json()
    assert continued.get("desired") == "running", continued
    service.client.post(f"/runs/{run_id}/cancel")
    assert ended(service, run_id, "cancelled")
    refused = service.client.post(f"/runs/{run_id}/pause")
    assert (refused.status_code, refused.json()["field"]) == (409, "run")


def ended(service, run_id, status):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if service.client.get(f"/runs/{run_id}").json()["status"] == status:
            return True
        time.sleep(0.1)
    return False


def test_a_prediction_is_that_of_the_store_and_a_measurement_is_stored(service):
    run_id = service.finished(service.submit(service.question(prompt="one two three four five six seven eight nine ten eleven twelve")))
    path = f"/runs/{run_id}"
    one = service.client.post(f"{path}/predict", json={"removed": ["two", 3]}).json()
    several = service.client.post(f"{path}/predict", json={"removed": [[1, 3], [0]]}).json()
    assert one == {**several["predictions"][0], **{name: several[name] for name in ("run_id", "value_intact", "value_empty")}}
    assert one["lo"] <= one["value"] <= one["hi"]
    kept = service.client.post(f"{path}/predict", json={"kept": [0, 2, *range(4, 12)]}).json()
    assert kept["value"] == pytest.approx(one["value"], abs=1e-12)
    sets = [[1, 3, 5, 7, last, 11] for last in (8, 9, 10)]
    told = service.client.post(f"{path}/predict", json={"removed": sets}).json()["predictions"]
    unmeasured = next(each["removed"] for each in told if each["measured"] is None)
    exact = service.client.post(f"{path}/measure", json={"removed": unmeasured}).json()
    assert exact["measured"] is not None
    again = service.client.post(f"{path}/predict", json={"removed": unmeasured}).json()
    assert (again["measured"], again["value"]) == (exact["measured"], exact["value"])


def test_a_surrogate_comes_in_parts(service):
    parts = {part: service.read(f"/runs/{TAILS}/surrogate", part=part, format="json") for part in ("terms", "points", "tails")}
    assert service.read(f"/runs/{TAILS}/surrogate", format="json") == parts["terms"]
    assert {(each["n"], each["basis"]) for each in parts.values()} == {(43, 0.7)}
    assert [row["keep_probability"] for row in parts["tails"]["rows"]] == [0.5, 0.8]
    n, masks = 43, base64.b64decode(parts["tails"]["rows"][1]["centres"])
    assert len(masks) == -(-n // 8) * len(parts["tails"]["rows"][1]["weights"])
    first, second = (np.unpackbits(np.frombuffer(base64.b64decode(row["mask"]), np.uint8), count=n) for row in parts["points"]["rows"][:2])
    assert (first.sum(), second.sum()) == (n, n - 1)
    assert {row["held_out"] is None for row in parts["points"]["rows"]} == {True, False}
    assert service.client.get(f"/runs/{TAILS}/surrogate", params={"part": "sums"}).status_code == 422


def test_the_smallest_set_that_changes_the_answer_is_measured(service, answered):
    run_id = answered["feature"]
    row = service.client.get(f"/runs/{run_id}").json()
    halfway = (row["value_intact"] + row["value_empty"]) / 2
    found = service.client.post(f"/runs/{run_id}/flip", json={"threshold": halfway}).json()
    assert found["status"] == "flipped"
    best = found["best"]
    assert (best["measured"] > halfway) != (row["value_intact"] > halfway)
    assert best["measured"] == service.client.post(f"/runs/{run_id}/measure", json={"removed": best["removed"]}).json()["measured"]
    none = service.client.post(f"/runs/{run_id}/flip", json={"threshold": 1e6 if row["value_intact"] < 1e6 else -1e6, "most": 2}).json()
    assert (none["status"], none["best"]) == ("not found", None)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/runs", {"lens": {"kind": "feature", "prompt": 3}}, 422, "lens.prompt"),
        ("/runs", {"lens": {"kind": "feature", "prompt": "x", "bogus": 1}}, 422, "bogus"),
        ("/runs", {"lens": {"kind": "telescope"}}, 422, "choose one of"),
        ("/runs", [], 422, "is not a spec"),
        ("/runs", {"spec": None}, 422, "is not a spec"),
        ("/runs", {"lens": {"kind": "feature", "prompt": "x", "allow_pickle": True}}, 422, "pickled weights can run code"),
        ("/runs", {"lens": {"kind": "feature", "prompt": "x", "allow_remote_code": True}}, 422, "remote_code"),
        ("/runs/last/predict", {"removed": ["nothing"]}, 422, "is not a component"),
        ("/runs/last/predict", {"removed": [99]}, 422, "is not a component"),
        ("/runs/last/predict", {}, 422, "either removed or kept"),
        ("/runs/last/predict", {"removed": [1], "query": 5}, 422, "query"),
        ("/runs/nothing/predict", {"removed": [1]}, 404, "is unknown"),
        ("/sql", {"query": "DROP TABLE runs"}, 422, "DROP is not allowed"),
        ("/sql", {"query": "SELECT * FROM '/etc/passwd'"}, 422, "sql"),
        ("/sql", {"query": "SELECT 1", "limit": 0}, 422, "limit"),
        ("/sql", {"query": "SELECT sum(hash(a.range)) FROM range(3000000000) a", "timeout": 0.5}, 422, "took longer than"),
        ("/preview", {"lens": {"kind": "data", "train": "corpus:chatterbot:history"}}, 422, "has no prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line_with_its_field(service, answered, path, body, status, message):  # noqa: PLR0917  as parametrized
    response = service.client.post(path.replace("last", answered["feature"]), json=body)
    assert response.status_code == status, response.text
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert message in problem["detail"]
    assert "\n" not in problem["detail"]
    assert {"field", "problem", "remedy"} <= set(problem)


def test_bodies_that_are_not_what_they_say_are_refused(service):
    for body, media, status in (
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff", "application/yaml", 422),
        (b"a: &a [*a]", "application/yaml", 422),
        (b"x", "text/plain", 415),
    ):
        response = service.client.post("/runs", content=body, headers={"content-type": media})
        assert response.status_code == status, (body[:9], response.text)


def test_sql_in_every_format(service):
    query = "SELECT 1 AS a, 'x,y' AS b, NULL AS c, [1, 2] AS d, TIMESTAMP '2026-01-02 03:04:05' AS t, 'NaN'::DOUBLE AS n"
    told = service.client.post("/sql", json={"query": query}).json()
    assert [column["name"] for column in told["columns"]] == ["a", "b", "c", "d", "t", "n"]
    assert told["rows"] == [[1, "x,y", None, [1, 2], "2026-01-02T03:04:05", None]]
    assert told["truncated"] is False
    assert service.client.get("/sql", params={"q": query, "format": "csv"}).text == 'a,b,c,d,t,n\n1,"x,y",,"[1, 2]",2026-01-02T03:04:05,\n'
    arrow = pa.ipc.open_stream(service.client.post("/sql", json={"query": query}, headers={"Accept": "application/vnd.apache.arrow.stream"}).content).read_all()
    assert arrow["d"].to_pylist() == [[1, 2]]
    many = service.client.post("/sql", json={"query": "SELECT range FROM range(100)", "limit": 10}).json()
    assert (len(many["rows"]), many["truncated"]) == (10, True)


def test_a_preview_cuts_the_prompt_and_says_what_comes_next(service):
    found = service.client.post("/preview", json=service.question(prompt="one two  three")).json()
    assert [(each["label"], each["start"], each["stop"]) for each in found["components"]] == [("one", 0, 3), ("two", 4, 7), ("three", 9, 14)]
    probabilities = [answer["probability"] for answer in found["answers"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1


def test_a_preview_reads_the_files_that_come_with_the_question(service):
    spans = b"[[0, 3], [4, 7]]"
    digest = hashlib.sha256(spans).hexdigest()
    question = service.question(prompt="one two three", unit="spans", spans=f"blob:{digest}:/nowhere/spans.json")
    found = service.client.post("/preview", json={"spec": question, "content": {digest: base64.b64encode(spans).decode()}})
    assert found.status_code == 200, found.text
    assert [each["label"] for each in found.json()["components"]] == ["one", "two"]


def test_a_plan_costs_nothing_twice(service):
    first = service.client.post("/plan", json=service.question() | {"seed": 3}).json()
    assert first["components"] == 6
    assert "components" in first["text"]
    again = service.client.post("/plan", json=service.question() | {"seed": 3}).json()
    assert again["timed_here"] is False


def test_hostile_texts_come_back_as_they_are_and_only_as_json(service):
    hostile = '</script><script>alert(1)</script> "><img src=x onerror=alert(1)> \u202egnp'
    run_id = service.submit(service.question(prompt=f"good {hostile} film") | {"name": hostile})
    service.finished(run_id)
    response = service.client.get("/runs", params={"q": "<script>"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["runs"][0]["name"] == hostile
    told = service.client.post("/sql", json={"query": f"SELECT name FROM runs WHERE run_id = '{run_id}'"}).json()
    assert told["rows"] == [[hostile]]
