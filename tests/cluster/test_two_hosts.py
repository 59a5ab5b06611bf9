"""Hosts that only a network connects: a question arrives from a third one, links are cut and mended, nodes are lost for good, and the head is killed and comes back.

Each run must give the answer of an undisturbed one, and pay for nothing twice but what was in flight.
"""

import json
import secrets

import namespaces
import pytest
from namespaces import DASHBOARD, RAYSP, network, until
from tiny_models import save

import raysp
from raysp.runs.state import states

REASON = namespaces.missing()
pytestmark = [pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(600)]

WORDS = "Her acting never fails but this quiet film was rather long".split()
#: What follows the prompt is read again for each mask, so that the run is under way for seconds.
TEMPLATE = "{prompt}." + " A letter from the city said so." * 24 + " It was"
#: How soon a lost node is noticed: with Ray's own settings after 64 s.
NOTICED_SOON = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}


class Asked:
    """A question of 2 to the `count` masks as a spec, and what it is answered where nothing disturbs it."""

    def __init__(self, folder, model, count):
        lens = raysp.FeatureLens(model=model, prompt=" ".join(WORDS[:count]), template=TEMPLATE, target=" good", foil=" not", dtype="float32", device="cpu")
        scored = raysp.Validation(heldout=0, top=0, random=0, low_pairs=0)
        self.spec = raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), validation=scored, threads=1, name="far")
        calm = raysp.run(self.spec.model_copy(update={"local": True, "store": str(folder / "calm.duckdb")}))
        self.paid, self.answer = sum(calm.costs["evaluations"].to_pylist()), answer({"interactions": calm.interactions.to_pylist(), "singles": calm.singles.to_pylist()})
        self.text = json.dumps(self.spec.model_dump(mode="json", exclude_none=True))  # JSON is YAML


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("model"), context=1024)


@pytest.fixture
def hosts(tmp_path):
    """Hosts that have the same token."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": "", "RAYSP_LOG_LEVEL": "DEBUG"}
    with network(tmp_path, **variables) as made:
        made.environment.pop("RAY_AUTH_TOKEN")
        yield made


def answer(told):
    """The effects of an answer by what they are of."""
    return {row["labels"]: row["value"] for row in told["interactions"]} | {row["component"]: row["value"] for row in told["singles"]}


def submit(host, head, asked):
    """Send a question from a host that knows the cluster by its address and token alone, and follow it."""
    (host.folder / "question.yaml").write_text(asked.text)
    return host.start(*RAYSP, "submit", "question.yaml", "--address", f"http://{head.address}:{DASHBOARD}", "--follow", "--json")


def measured(head):
    """How many evaluations the run has, as the store on the head says."""
    store = head.folder / "raysp" / "raysp.duckdb"
    if not store.exists():
        return 0
    try:
        with raysp.Store.read(store) as reading:
            found = states(reading)
    except raysp.UserError:  # it is being made
        return 0
    return found[0].progress.done if found and found[0].progress else 0


def largest_lease(hosts):
    """The most masks that an evaluator was given at once."""
    logs = [line for path in hosts.folder.glob("*/ray/ray/session_2*/logs/worker-*.err") for line in path.read_text(errors="replace").splitlines()]
    return max(json.loads(line)["masks"] for line in logs if '"lease begun"' in line)


def check(process, asked, hosts, *, lost):
    """The run has the answer of an undisturbed one, and paid at most for what each lost evaluator held: a lease under way, and one behind it."""
    out, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    found = json.loads(out)
    assert found["summary"]["status"] == "done"
    assert answer(found) == pytest.approx(asked.answer, abs=1e-4)
    paid = sum(row["evaluations"] for row in found["costs"])
    assert asked.paid <= paid <= asked.paid + lost * 2 * largest_lease(hosts)


def test_a_question_from_a_third_host_is_answered_though_the_link_to_the_worker_is_cut_for_a_while(model, hosts, tmp_path):
    """The worker is the only one: nothing can be measured while it is away."""
    asked = Asked(tmp_path, model, 10)
    head, worker, client = hosts.host("head"), hosts.host("worker"), hosts.host("client")
    head.head()
    worker.worker(head)
    process = submit(client, head, asked)
    before = until("evaluations", lambda: measured(head))
    worker.cut()
    assert process.poll() is None
    assert before < asked.paid
    until("the silence", lambda: silent(head), 60)
    worker.mend()
    check(process, asked, hosts, lost=1)


def silent(head):
    """Whether nothing has been measured for two seconds."""
    import time

    before = measured(head)
    time.sleep(2.5)
    return measured(head) == before


@pytest.mark.chaos
def test_a_node_that_is_cut_off_for_good_is_replaced_by_one_that_joins(model, hosts, tmp_path):
    asked = Asked(tmp_path, model, 11)
    hosts.environment |= NOTICED_SOON
    head, first, second, client = (hosts.host(name) for name in ("head", "first", "second", "client"))
    head.head()
    first.worker(head)
    second.worker(head)
    process = submit(client, head, asked)
    before = until("evaluations", lambda: measured(head))
    first.cut()
    until("evaluations of the other node", lambda: measured(head) > before)
    first.mend()
    second.cut()
    third = hosts.host("third")
    third.worker(head)
    until("an evaluator of the node that joined", lambda: any('"evaluator ready"' in line or '"game built"' in line for line in logged(third)))
    check(process, asked, hosts, lost=2)


def logged(host):
    """What raysp's processes on a host have logged."""
    return [line for path in host.folder.glob("ray/ray/session_2*/logs/worker-*.err") for line in path.read_text(errors="replace").splitlines()]


@pytest.mark.chaos
def test_a_head_that_is_killed_and_started_again_goes_on_with_its_runs_and_whoever_follows_is_answered(model, hosts, tmp_path):
    """Its state is on a disk that outlives it."""
    asked = Asked(tmp_path, model, 11)
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    hosts.environment |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "300"}
    head, first, second, client = (hosts.host(name) for name in ("head", "first", "second", "client"))
    head.head(**kept)
    first.worker(head)
    second.worker(head)
    process = submit(client, head, asked)
    before = until("evaluations", lambda: measured(head))
    head.kill()
    assert before < asked.paid
    head.head(**kept)
    check(process, asked, hosts, lost=2)
