"""What tests of a service on a real Ray share: its actors are ended, and nothing of it stays for the next test."""

import contextlib
import os
import socket
import time
from pathlib import Path

import answered_games
import ray
from ray.cluster_utils import Cluster

from raysp.runtime.cluster import NAMESPACE, forget_actor_classes
from raysp.runtime.scheduler import NAME


@contextlib.contextmanager
def service_home(tmp_path_factory):
    """A home for the processes of a Ray that is started within the block; models are kept for the whole machine, as in `conftest.home`."""
    before = os.environ.get("RAYSP_HOME")
    folder = tmp_path_factory.mktemp("service")
    kept = Path(before or "~/.raysp").expanduser() / "models"
    kept.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(kept)
    os.environ["RAYSP_HOME"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["RAYSP_HOME"]
        else:
            os.environ["RAYSP_HOME"] = before


def free_port():
    """A port that nobody uses: where another Ray has the dashboard's usual one, a cluster of tests would have no dashboard."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def joined(tmp_path_factory, *cores):
    """A Ray with a node for each of these numbers of cores, the first of them the head, joined by this process as a driver, with a home of its own."""
    with service_home(tmp_path_factory):
        settings = {"dashboard_port": free_port(), "_system_config": {"metrics_report_interval_ms": 1000}}
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": cores[0], **settings})
        for more in cores[1:]:
            nodes.add_node(num_cpus=more)
        ray.cloudpickle.register_pickle_by_value(answered_games)  # what a test's own function calls in turn
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
        nodes.wait_for_nodes()
        yield nodes
        end_service()
        ray.shutdown()
        nodes.shutdown()


class Nodes:
    """A head without work, to which this process is connected, and worker nodes of one core each, which have room for one evaluator."""

    def __init__(self):
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self._cluster.address
        ray.init(address=self.address, namespace=NAMESPACE, log_to_driver=False)

    @property
    def workers(self):
        return [node for node in self._cluster.list_all_nodes() if node is not self._cluster.head_node]

    def resize(self, count):
        """Add nodes, or lose some."""
        while len(self.workers) > count:
            self.lose(self.workers[0])
        for _ in range(count - len(self.workers)):
            self._cluster.add_node(num_cpus=1)

    def lose(self, node):
        """Kill a node's raylet, as if its machine had lost its power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self):
        """End the service and its Ray."""
        try:
            end_service()
        finally:
            ray.shutdown()
            forget_actor_classes()
            self._cluster.shutdown()


def pid_of(name, group):
    """The process of an actor, asked in one of its concurrency groups."""
    return ray.get(ray.get_actor(name, NAMESPACE).__ray_call__.options(concurrency_group=group).remote(lambda _: os.getpid()), timeout=30)


def actors(prefix="raysp:"):
    """The names of the service's actors that begin with a prefix."""
    return sorted(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["name"].startswith(prefix))


def end_service():
    """Close the scheduler, and end all actors of the service."""
    with contextlib.suppress(ValueError, ray.exceptions.RayActorError):
        ray.get(ray.get_actor(NAME, NAMESPACE).close.remote(), timeout=90)
    for name in actors():
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
    deadline = time.monotonic() + 60
    while actors():
        assert time.monotonic() < deadline, actors()
        time.sleep(0.05)
