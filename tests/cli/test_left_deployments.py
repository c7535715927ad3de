"""Deployments whose flow this checkout does not have are told from those whose flow it has."""

import pytest
import yaml
from prefect.client.schemas.responses import DeploymentResponse

from safelight.cli.left_deployments import without_flow
from tests.served import CHECKOUT

ENTRIES = yaml.safe_load((CHECKOUT / "deployments" / "prefect.yaml").read_text())["deployments"]


def deployed(entrypoint: str) -> DeploymentResponse:
    return DeploymentResponse.model_construct(name="one", entrypoint=entrypoint)


def test_all_that_are_deployed_are_here():
    ours = [deployed(entry["entrypoint"]) for entry in ENTRIES]
    assert len(ours) > 20
    assert without_flow(ours) == []


@pytest.mark.parametrize(
    "entrypoint",
    [
        "flows.gone.gone",
        "flows.generate.gone",
        "flows.batching.runs.BatchRuns",
        "flows.",
        "flows.x",
    ],
)
def test_what_is_not_here_is_named(entrypoint: str):
    found = deployed(entrypoint)
    assert without_flow([found]) == [found]


def test_what_is_not_ours_is_nothing_of_ours():
    assert without_flow([deployed("elsewhere.flow")]) == []
