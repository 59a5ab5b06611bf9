"""One Ray and one service for all tests of this folder: its processes take longer to start than what is asked of them."""

import pytest
from services import joined


@pytest.fixture(scope="package", autouse=True)
def cluster(tmp_path_factory):
    """Two nodes of one core each."""
    with joined(tmp_path_factory, 1, 1) as nodes:
        yield nodes
