"""Hosts that only a network connects: a question arrives from a third one, links are cut and restored, nodes are lost for good, and the head is killed and comes back.

Each run must give the answer of an undisturbed one, and pay for nothing twice but what was in flight.
"""

import json
import secrets
import time

import namespaces
import pytest
from namespaces import DASHBOARD, RAYSP, network
from tiny_models import save
from waiting import until

import raysp

REASON = namespaces.missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=str(REASON)), pytest.mark.timeout(600)]

PROMPT = "Her acting never fails but this film was long"
#: What follows the prompt is read again for each mask, so that the run is under way for seconds.
TEMPLATE = "{prompt}." + " A letter from the city said so." * 8 + " It was"
#: How long a link is cut that is restored: shorter than it takes Ray to give a node up.
CUT_SECONDS = 5
#: How soon a lost node is noticed: with Ray's own settings after 64 s.
NOTICED_SOON = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}


class Asked:
    """A question of 512 masks as a spec, and what it is answered where nothing disturbs it."""

    def __init__(self, folder, model):
        lens = raysp.FeatureLens(model=model, prompt=PROMPT, template=TEMPLATE, target=" good", foil=" not", dtype="float32", device="cpu")
        scored = raysp.Validation(heldout=0, top=0, random=0, low_pairs=0)
        self.spec = raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), validation=scored, threads=1, name="far")
        calm = raysp.run(self.spec.model_copy(update={"local": True, "store": str(folder / "calm.duckdb")}))
        self.paid = sum(calm.costs["evaluations"].to_pylist())
        self.answer = answer({"interactions": calm.interactions.to_pylist(), "singles": calm.singles.to_pylist()})
        self.text = json.dumps(self.spec.model_dump(mode="json", exclude_none=True))  # JSON is YAML


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    return Asked(folder, save("llama", folder / "llama", context=1024))


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


def logged(host):
    """What raysp's processes on a host have logged."""
    lines = [line for path in host.folder.glob("ray/ray/session_2*/logs/worker-*.err") for line in path.read_text(errors="replace").splitlines()]
    return [json.loads(line) for line in lines if line.startswith('{"time"') and line.endswith("}")]


def leases(*hosts):
    """The number of masks of each batch of work that evaluators on these hosts have begun."""
    return [line["masks"] for host in hosts for line in logged(host) if line["message"] == "lease begun"]


def lost(head):
    """The number of masks that were given to an evaluator and taken from it again, as the scheduler says."""
    return sum(line["masks"] for line in logged(head) if line["message"] in {"lease lost", "lease blamed", "lease expired"})


def check(process, asked, *, twice):
    """The run has the answer of an undisturbed one, and paid at most for `twice` evaluations more."""
    out, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    found = json.loads(out)
    assert found["summary"]["status"] == "done"
    assert answer(found) == pytest.approx(asked.answer, rel=1e-4, abs=1e-4)
    paid = sum(row["evaluations"] for row in found["costs"])
    assert asked.paid <= paid <= asked.paid + twice()


def test_a_question_from_a_third_host_is_answered_though_links_are_cut_for_a_while_and_for_good(asked, hosts):
    """The worker is the only one until another joins: while it is away, nothing can be measured."""
    hosts.environment |= NOTICED_SOON
    head, worker, client, other = (hosts.host(name) for name in ("head", "worker", "client", "other"))
    head.head()
    worker.worker(head)
    process = submit(client, head, asked)
    until("evaluations", lambda: leases(worker))
    worker.cut()
    time.sleep(CUT_SECONDS)
    before = leases(worker)
    worker.restore()
    until("evaluations once the link is restored", lambda: len(leases(worker)) > len(before))
    worker.cut()
    other.worker(head)
    check(process, asked, twice=lambda: lost(head))
    assert leases(other), "the run had ended before the link was cut for good"


def test_a_head_that_is_killed_and_started_again_goes_on_with_its_runs_and_whoever_follows_is_answered(asked, hosts, tmp_path):
    """Its state is on a disk that outlives it, as is the store."""
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    hosts.environment |= {"RAY_gcs_rpc_server_reconnect_timeout_s": "300"}
    head, worker, client = (hosts.host(name) for name in ("head", "worker", "client"))
    head.head(**kept)
    worker.worker(head)
    process = submit(client, head, asked)
    until("evaluations", lambda: leases(worker))
    head.kill()
    before = leases(worker)
    head.head(**kept)
    check(process, asked, twice=lambda: 2 * max(before) + lost(head))  # the scheduler that died had given one lease, and one behind it
    assert sum(before) < sum(leases(worker)), "the run had ended before the head was killed"
