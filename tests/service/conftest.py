"""One Ray and one service for all tests of this folder: its processes take longer to start than what is asked of them."""

import answered_games
import pytest
import ray
from ray.cluster_utils import Cluster
from services import end_service, free_port, service_home

from raysp.runtime.cluster import NAMESPACE


@pytest.fixture(scope="package", autouse=True)
def cluster(tmp_path_factory):
    """Two nodes of one core each, joined by this process as a driver."""
    with service_home(tmp_path_factory):
        settings = {"dashboard_port": free_port(), "_system_config": {"metrics_report_interval_ms": 1000}}
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **settings})
        nodes.add_node(num_cpus=1)
        ray.cloudpickle.register_pickle_by_value(answered_games)  # what a test's own function calls in turn
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
        nodes.wait_for_nodes()
        yield nodes
        end_service()
        ray.shutdown()
        nodes.shutdown()
