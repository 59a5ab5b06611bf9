"""A Ray of several nodes and a home of its own for each test, as nodes come and go in it."""

import answered_games
import pytest
import ray
from services import Nodes, service_home


@pytest.fixture
def nodes(tmp_path_factory):
    with service_home(tmp_path_factory):
        ray.cloudpickle.register_pickle_by_value(answered_games)
        found = Nodes()
        yield found
        found.end()
