"""What a run leaves in the Prefect UI: its results as pictures, the manifest, a link to each file.

Whoever ends a run leaves its page: the run itself, or the worker whose process of it is gone.
"""

import json
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate

from safelight.client.asking import ask, patient_client
from safelight.client.markdown import cell, code
from safelight.errors import EngineOfflineError, PipelineError
from safelight.exports.facts import Result, run_results
from safelight.exports.placing import disposition, saved_as
from safelight.exports.template import result_template
from safelight.media.images import decode_image
from safelight.media.layers import on_white
from safelight.media.previews import picture_preview, video_preview
from safelight.provenance.manifest import Manifest, StageEntry
from safelight.settings import settings
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

LOG = logging.getLogger(__name__)
PAGE_SECONDS = 5.0
"""A server that is busy for longer costs the run's page."""
LINK_SECONDS = 7 * 24 * 3600
"""The longest that S3 lets a presigned link live."""
SHOWN_RESULTS = 8
"""Results shown as pictures in the UI; the others are named below them."""
MOST_LINKS = 100
"""Links on a page, a request to the server each; the manifest lists all."""


def describe(flow_run_id: UUID, name: str, tags: list[str]) -> None:
    """Give a run a name and tags; without an answer of the server it keeps those it has."""
    with left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
        client.update_flow_run(flow_run_id, name=name, tags=tags)


def publish(manifest: Manifest, flow_run_id: UUID) -> None:
    """Leave the result, the manifest as a table, and a link to each file on the run's page.

    A Prefect server that does not answer costs the page, never the run.
    """
    with left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
        for leaf in _leaves(manifest):
            client.create_artifact(leaf.model_copy(update={"flow_run_id": flow_run_id}))


@contextmanager
def left_out() -> Generator[None]:
    """What is shown in here is missing on the page where the server does not answer."""
    try:
        yield
    except EngineOfflineError as error:
        LOG.warning("left out on the run's page: %s", error.problem)


def on_page(leave: Callable[[], object]) -> None:
    """Leave something on a run's page, again for a while when the server is busy.

    Raises:
        EngineOfflineError: it was busy for too long.
        PipelineError: it refused.
    """
    ask(leave, "the run's page", seconds=PAGE_SECONDS, stops=False)


def _leaves(manifest: Manifest) -> Generator[ArtifactCreate]:
    results = manifest.shown
    pictures = "\n\n".join(
        _shown(ref) if at < SHOWN_RESULTS else f"`{ref.uri}`"
        for at, ref in enumerate(results[:MOST_LINKS])
    )
    if len(results) > MOST_LINKS:
        pictures += f"\n\nand {len(results) - MOST_LINKS} more, which the manifest names"
    heading = (
        ""
        if manifest.error is None
        else f"**{manifest.error.code}**: {code(manifest.error.problem)}\n\n"
        f"Fix: {code(manifest.error.remedy)}"
    )
    yield ArtifactCreate(
        type="markdown",
        key="result",
        description=f"What {manifest.flow} made",
        data=f"{heading}\n\n{pictures}\n\nManifest: `{manifest.key}`",
    )
    if manifest.stages:
        yield ArtifactCreate(
            type="table",
            key="manifest",
            description=f"Stages of this run; all of it in {manifest.key}",
            data=json.dumps([_row(entry) for entry in manifest.stages]),
        )
    ends = current_store().link_ends(LINK_SECONDS)
    for result in run_results(manifest)[:MOST_LINKS]:
        ref = result.ref
        name = ref.sha256[:12]
        yield ArtifactCreate(
            type="markdown",
            key=f"file-{name}",
            description=f"{ref.media_type}, {ref.bytes} bytes" + (f"; {ends}" if ends else ""),
            data=f"[{name}{ref.extension}]({link_to_result(result)})",
        )


def link_to_result(result: Result) -> str:
    """A link that saves the file by the name that the settings' template gives.

    Where the gateway's address is known it leads there, else into the store.
    """
    gateway, run = settings().gateway_url, result.facts.get("run")
    if gateway and run:
        return f"{gateway.rstrip('/')}/api/jobs/{run}/artifacts/{result.ref.sha256}"
    try:
        name = saved_as(result, result_template([*result.facts]))
    except PipelineError as error:  # of the settings; the file is what counts
        LOG.warning("the link's file is called by its content: %s", error)
        name = f"{result.otherwise}{result.ref.extension}"
    return current_store().link(result.ref, LINK_SECONDS, disposition(name))


def _shown(ref: ArtifactRef) -> str:
    try:
        preview = _preview(ref)
    except PipelineError as error:  # the file is gone or damaged since it was made
        return f"`{ref.uri}` {code(error.problem)}"
    if preview is None:
        return f"`{ref.uri}`"
    size = f"{ref.width}x{ref.height}" + (f", {ref.frames} frames" if ref.frames else "")
    return f"![{ref.sha256[:12]}]({preview})\n\n`{ref.uri}` {size}"


def _preview(ref: ArtifactRef) -> str | None:
    store = current_store()
    if ref.kind == "image":
        pixels = store.remembered(ref)
        whole = decode_image(store.read(ref)) if pixels is None else on_white(pixels)
        return picture_preview(whole)
    return video_preview(store.fetch(ref)) if ref.kind == "video" else None


def _served(entry: StageEntry) -> str:
    """The engine that did the work, and why those before it did not."""
    before = [f"not {each.engine_id}: {each.code}, {each.problem}" for each in entry.passed_over]
    return "; ".join([f"{entry.engine.engine_id} {entry.engine.version}", *before])


def _costs(entry: StageEntry) -> list[str]:
    """What its calls to providers cost."""
    return [
        f"{charge.engine_id} {'expects' if charge.charged_usd is None else 'charged'} "
        f"{charge.usd:.4f} USD for {charge.model}"
        for charge in entry.charges
    ]


def _row(entry: StageEntry) -> dict[str, str]:
    return {
        "stage": cell(entry.name),
        "status": entry.status,
        "seconds": f"{entry.seconds:.2f}",
        "peak": f"{entry.peak_bytes / 2**20:.0f} MiB",
        "engine": cell(_served(entry)),
        "results": ", ".join(ref.sha256[:12] for ref in entry.results),
        "notes": cell("; ".join((*entry.notes, *entry.licences, *_costs(entry)))),
    }
