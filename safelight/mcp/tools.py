"""What programs that speak MCP may do: choose, submit, wait, look, search, remix, cancel."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import anyio
from anyio.to_thread import run_sync
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from prefect.client.orchestration import SyncPrefectClient
from pydantic import Field, JsonValue

from safelight.errors import PipelineError
from safelight.gallery import searching
from safelight.gallery.index import gallery
from safelight.gateway import offers
from safelight.gateway.jobs import Flows, Job, Status, find_job
from safelight.gateway.listing import LARGEST_PAGE, list_jobs
from safelight.gateway.steering import Submission, Submitter, cancel
from safelight.gateway.workflows import flow_named
from safelight.installed import version
from safelight.mcp.costs import estimate, require_confirmed
from safelight.mcp.pictures import results_of, small_picture

T = TypeVar("T")
POLL_SECONDS = 1.0
LONGEST_WAIT = 3600.0
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
INSTRUCTIONS = """Makes pictures and short videos. Choose with list_presets or list_workflows, read
what one takes with describe, submit it, wait for the job, look at the result. Work on own devices
is free; a job that may be served by a provider is refused until confirm_cost_usd names the sum that
a person agreed to."""
Workflow = Annotated[str, Field(description="Id of a preset, an operation, or another workflow.")]
Parameters = Annotated[
    dict[str, JsonValue], Field(description="As describe says; what is left out has a default.")
]
Confirm = Annotated[
    float | None,
    Field(ge=0, description="USD that a person agreed to; needed only where it may cost."),
]
JobId = Annotated[UUID, Field(description="As submit or search gave it.")]


class Tools:
    """The functions behind the tools, over one client of the Prefect server.

    Args:
        client: of the server.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._flows = Flows(client)
        self._submitter = Submitter(client, self._flows)

    async def list_presets(self, category: str | None = None) -> list[dict[str, Any]]:
        """Presets: tuned pipelines with a quality level each, by id, with what they are for."""
        found = await _answered(lambda: offers.presets(category, None))
        return [
            {
                "id": card.id,
                "name": card.name,
                "category": card.category,
                "description": card.description,
                "quality_levels": card.quality_levels,
            }
            for card in found.presets
        ]

    async def list_workflows(self) -> list[dict[str, Any]]:
        """Everything else that can be submitted: single stages, and workflows of ComfyUI."""
        operations = await _answered(offers.operations)
        workflows = await _answered(offers.workflows)
        return [
            {"id": card.id, "description": card.description}
            for card in (*operations.operations, *workflows.workflows)
        ]

    async def describe(self, workflow: Workflow) -> dict[str, Any]:
        """JSON schema of what a preset or workflow takes, and what a job of it may cost."""

        def told() -> dict[str, Any]:
            flow = flow_named(workflow)
            expected = estimate(self._client, workflow, {})
            return {"parameters": offers.schema_of(flow), "cost": expected.model_dump()}

        return await _answered(told)

    async def submit(
        self, workflow: Workflow, parameters: Parameters, confirm_cost_usd: Confirm = None
    ) -> dict[str, Any]:
        """Submit a job; its id is there at once, the result when it has ended.

        A job that may cost money is refused, with what it may cost, until confirm_cost_usd names
        at least that sum.
        """
        return await _answered(lambda: self._submitted(workflow, parameters, confirm_cost_usd))

    async def wait(
        self,
        job_id: JobId,
        context: Context,
        seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] = 300.0,
    ) -> dict[str, Any]:
        """Wait until a job has ended, at most so many seconds; tells progress meanwhile."""
        last: tuple[float, str] | None = None
        with anyio.move_on_after(seconds):
            while True:
                job = await _answered(lambda: find_job(self._client, self._flows, job_id))
                if job.status in ENDED:
                    return self._ended(job)
                now = (job.progress, job.stage or job.status.value)
                if now != last:
                    await context.report_progress(job.progress, 100.0, now[1])
                    last = now
                await anyio.sleep(POLL_SECONDS)
        job = await _answered(lambda: find_job(self._client, self._flows, job_id))
        return self._ended(job)

    async def look(
        self,
        job_id: JobId,
        number: Annotated[int, Field(ge=1, description="Which result, from 1.")] = 1,
        side: Annotated[
            int, Field(ge=64, le=1536, description="Longer side of what is shown, pixels.")
        ] = 768,
    ) -> Image:
        """Look at a result of a job, scaled down; of a video, at its first frame."""

        def seen() -> bytes:
            results = results_of(job_id)
            if number > len(results):
                raise ToolError(f"job {job_id} has {len(results)} results, asked was {number}")
            return small_picture(results[number - 1], side)

        return Image(data=await _answered(seen), format="jpeg")

    async def search(
        self,
        text: Annotated[str | None, Field(description="Part of the prompt or file name.")] = None,
        status: Status | None = None,
        limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 20,
    ) -> list[dict[str, Any]]:
        """Past and present jobs, newest first."""
        page = await _answered(
            lambda: list_jobs(
                self._client,
                self._flows,
                status=status,
                kind=None,
                text=text,
                limit=limit,
                cursor=None,
            )
        )
        return [_told(job) for job in page.jobs]

    async def search_gallery(
        self,
        words: Annotated[
            str,
            Field(
                description="Words of the prompt; model:, seed:, character:, kind:video, since:1w "
                "and kept:yes narrow down.",
                max_length=searching.LONGEST,
            ),
        ] = "",
        limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 20,
    ) -> list[dict[str, Any]]:
        """Pictures and videos that jobs have made, newest first; look at one by its job."""

        def searched() -> list[dict[str, Any]]:
            index = gallery()
            index.refresh()
            files = searching.found(index, searching.parse(words), None).files[:limit]
            return [
                {
                    "job_id": filed.run,
                    "sha256": filed.sha256,
                    "uri": filed.ref.uri,
                    "prompt": filed.prompt,
                    "model": filed.model,
                    "seed": filed.seed,
                    "width": filed.width,
                    "height": filed.height,
                }
                for filed in files
            ]

        return await _answered(searched)

    async def remix(
        self,
        job_id: JobId,
        changes: Annotated[
            dict[str, JsonValue],
            Field(description="Parameters that replace those of the job; null takes one away."),
        ],
        confirm_cost_usd: Confirm = None,
    ) -> dict[str, Any]:
        """Submit a job again with changes, such as another seed or prompt."""

        def again() -> dict[str, Any]:
            before = find_job(self._client, self._flows, job_id)
            changed = {**before.parameters, **changes}
            kept: dict[str, JsonValue] = {
                name: value for name, value in changed.items() if value is not None
            }
            return self._submitted(before.workflow, kept, confirm_cost_usd)

        return await _answered(again)

    async def cancel(self, job_id: JobId, reason: str = "") -> dict[str, Any]:
        """Ask a job to stop; what its stages finished stays."""
        return _told(
            await _answered(lambda: cancel(self._client, self._flows, job_id, reason[:500]))
        )

    def _submitted(
        self, workflow: str, parameters: dict[str, JsonValue], confirmed: float | None
    ) -> dict[str, Any]:
        expected = estimate(self._client, workflow, parameters)
        require_confirmed(expected, confirmed)
        wanted = Submission(workflow=workflow, parameters=parameters)
        return _told(self._submitter.submit(wanted, None))

    def _ended(self, job: Job) -> dict[str, Any]:
        told = _told(job)
        if job.status is Status.SUCCEEDED:
            told["results"] = [
                {"number": at, "media_type": ref.media_type, "uri": ref.uri}
                | ({"width": ref.width, "height": ref.height} if ref.width else {})
                for at, ref in enumerate(results_of(job.id), 1)
            ]
        return told


def server_of(client: SyncPrefectClient) -> MCPServer:
    """The MCP server with all tools, over a client of the Prefect server."""
    server = MCPServer(
        "safelight", instructions=INSTRUCTIONS, version=version("safelight"), log_level="WARNING"
    )
    tools = Tools(client)
    for tool in (
        tools.list_presets,
        tools.list_workflows,
        tools.describe,
        tools.submit,
        tools.wait,
        tools.look,
        tools.search,
        tools.search_gallery,
        tools.remix,
        tools.cancel,
    ):
        server.add_tool(tool)
    return server


async def _answered(ask: Callable[[], T]) -> T:
    """What a question gives, in a thread; a refusal becomes an error that the caller can read.

    Raises:
        ToolError: with code, what was found, and what to do.
    """
    try:
        return await run_sync(ask)
    except PipelineError as error:
        raise ToolError(str(error)) from error


def _told(job: Job) -> dict[str, Any]:
    return {
        "job_id": str(job.id),
        "workflow": job.workflow,
        "name": job.name,
        "status": job.status.value,
        "progress": job.progress,
        "stage": job.stage,
        "error": job.error.model_dump() if job.error else None,
        "created_at": job.created_at.isoformat() if job.created_at else None,
    }
