"""The embedded server against its own description: schemathesis sends what OpenAPI allows and what it forbids."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from sekisho_tools.server import app
from server_fixtures import Site, ask, basic, running

EXAMPLES = int(os.environ.get("SEKISHO_SCHEMA_EXAMPLES", "8"))
"""Requests per operation; CI is bounded, a long run takes more."""
DESCRIPTION = app.openapi()
schema = schemathesis.openapi.from_dict(DESCRIPTION)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        device = found.device("known")
        found.assign(device, found.release())
        gateway = {
            "authentication.gatewaytoken.enabled": True,
            "authentication.gatewaytoken.key": "gateway-token-of-tests",
        }
        found.api.call("PUT", "/system/configs", gateway)
        yield found


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_that_can_be_thought_of_breaks_the_server(case, site):
    path = case.path
    if "/controller/v1/" in path:
        headers = {"Authorization": "GatewayToken gateway-token-of-tests"}
        case.path_parameters = dict(case.path_parameters or {}) | {"tenant": "DEFAULT", "controller": "known"}
    else:
        headers = basic("admin")
        if case.method == "PUT" and "authentication" in str(case.path_parameters):
            return  # it would lock itself out
    response = case.call(base_url=site.url, headers=headers)
    assert response.status_code < 500, response.text
    assert response.status_code != 401 or path.endswith("/enrol")
    if response.status_code >= 400 and response.content and case.method != "HEAD":
        assert response.json()["message"]


def test_the_server_lives_on_after_all_that(site):
    assert ask(f"{site.url}/healthz").json == {"status": "up"}
    assert site.api.call("GET", "/system/configs")["authentication.gatewaytoken.enabled"]["value"] is True


def test_every_operation_is_described():
    paths = DESCRIPTION["paths"]
    assert len(paths) > 50
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("description") or operation.get("summary"), f"{method} {path}"
