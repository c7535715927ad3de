"""Deployments of our flows on a server, and those whose flow this checkout does not have."""

from collections.abc import Iterable

from prefect.client.schemas.responses import DeploymentResponse

from safelight.client.contracts import Contract, contract, entrypoint
from safelight.errors import ContractMismatchError

ENTRYPOINTS = "flows."
"""How the entry points of our flows begin."""


def is_ours(deployment: DeploymentResponse) -> bool:
    """Whether a deployment runs one of our flows, of this checkout or of another."""
    return (deployment.entrypoint or "").startswith(ENTRYPOINTS)


def flow_of(deployment: DeploymentResponse) -> Contract | None:
    """What a deployment runs; None when it is not ours, or this checkout does not have it."""
    if not is_ours(deployment):
        return None
    name = (deployment.entrypoint or "").rpartition(".")[2]
    if deployment.entrypoint != entrypoint(name):
        return None
    try:
        return contract(name)
    except ContractMismatchError:
        return None


def without_flow(deployments: Iterable[DeploymentResponse]) -> list[DeploymentResponse]:
    """Those of ours whose flow this checkout does not have."""
    return [found for found in deployments if is_ours(found) and flow_of(found) is None]
