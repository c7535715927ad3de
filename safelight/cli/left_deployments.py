"""Deployments of our flows on a server, and those whose flow this checkout does not have."""

import re
from collections.abc import Iterable

from prefect import Flow
from prefect.client.schemas.responses import DeploymentResponse
from prefect.utilities.importtools import import_object

from safelight.client.contracts import Contract, contract, entrypoint
from safelight.errors import ContractMismatchError

ENTRYPOINTS = "flows."
"""How the entry points of our flows begin."""
_OURS = re.compile(r"flows\.[a-z0-9_]+\.[a-z0-9_]+")


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
    return [found for found in deployments if is_ours(found) and not _is_here(found)]


def _is_here(deployment: DeploymentResponse) -> bool:
    """Whether this checkout has the flow, be it one whose parameters we check or a plain one."""
    if flow_of(deployment) is not None:
        return True
    if _OURS.fullmatch(deployment.entrypoint or "") is None:
        return False
    try:
        return isinstance(import_object(deployment.entrypoint or ""), Flow)
    except (ImportError, AttributeError):
        return False
