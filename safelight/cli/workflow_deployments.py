"""Deployments of the flows that run workflows of ComfyUI."""

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from safelight.cli.printing import show_line
from safelight.client.contracts import contract, entrypoint
from safelight.errors import PipelineError
from safelight.workflows.files import flow_names

TAGS = ["workflow", "comfyui"]


def deploy_workflows(client: SyncPrefectClient, pool: str) -> int:
    """Put a deployment for each workflow of this machine on a server; how many there are.

    One whose files are not as they should be is named and left out.
    """
    deployed = 0
    for flow in flow_names():
        try:
            deploy_workflow(client, flow, pool)
        except PipelineError as error:
            show_line(f"{flow} is not deployed: {error}")
        else:
            deployed += 1
    return deployed


def deploy_workflow(client: SyncPrefectClient, flow: str, pool: str) -> UUID:
    """Put the deployment of a workflow on a server, with its form as it is now.

    Raises:
        PipelineError: its files are not as they should be.
    """
    known = contract(flow).flow
    return client.create_deployment(
        client.create_flow_from_name(flow),
        name=flow,
        entrypoint=entrypoint(flow),
        description=(known.description or "").partition("\n\n")[0],
        tags=TAGS,
        work_pool_name=pool,
        parameter_openapi_schema=known.parameters.model_dump_for_openapi(),
        enforce_parameter_schema=True,
    )
