"""Requests that fit the OpenAPI document, and those that do not, are answered as it says, without a defect of the server."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, not_a_server_error

#: Requests of each route and method; `make fuzz` tries more.
EXAMPLES = max(12, int(os.environ.get("RAYSP_FUZZ_EXAMPLES", "0")) // 50)


@pytest.fixture(scope="module")
def document(service, answered):
    """The routes of the service; those with a run are asked about one that exists in most requests. Streams do not end, and are left out."""
    found = schemathesis.openapi.from_url(f"{service.url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {service.token}"})
    runs = [answered["feature"], answered["mechanistic"]]

    @found.hook
    def map_path_parameters(context, path_parameters):
        drawn = len(str((path_parameters or {}).get("run", "")))
        return path_parameters if not path_parameters or drawn % 3 == 0 else {**path_parameters, "run": runs[drawn % 2]}

    return found.exclude(path_regex="/events$")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_a_defect(document, service, mode):
    labels = []
    for operation in (found.ok() for found in document.get_all_operations()):
        labels.append(operation.label)

        @given(operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def answered_without_a_defect(case):
            case.call_and_validate(
                checks=[not_a_server_error, *CHECKS.get_by_names(["response_schema_conformance", "status_code_conformance", "content_type_conformance"])],
                headers={"Authorization": f"Bearer {service.token}"},
                timeout=120,
            )

        try:
            answered_without_a_defect()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # a route without parameters has no wrong request
                raise
    everything = service.client.get("/openapi.json").json()["paths"]
    assert len(labels) == sum(len(methods) for path, methods in everything.items() if not path.endswith("/events"))
