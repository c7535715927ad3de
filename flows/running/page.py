"""What people see of a run in the Prefect UI: progress, the result as a picture, the manifest."""

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import ParamSpec
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.running.markdown import cell, code
from safelight.client.asking import ask, patient_client
from safelight.errors import EngineOfflineError
from safelight.media.previews import picture_preview, video_preview
from safelight.provenance.manifest import Manifest, StageEntry
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.keeping import load_image
from tasks.base.recorder import Recorder

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
SECONDS_BETWEEN_UPDATES = 1.0
PAGE_SECONDS = 5.0
"""A server that is busy for longer costs the run's page."""
LINK_SECONDS = 7 * 24 * 3600
"""The longest that S3 lets a presigned link live."""
SHOWN_RESULTS = 8
"""Results shown as pictures in the UI; the others are named below them."""
MOST_LINKS = 100
"""Links on a page, a request to the server each; the manifest lists all."""


class ProgressBoard:
    """One progress artifact a run, brought up to date at most once a second.

    A run that is over within the first second has none. A thread of its own asks the server:
    however slow that is, no step waits for it.
    """

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._last = time.monotonic()
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._sending: Future[None] | None = None
        self.recorder: Recorder | None = None
        """The run's record; says how many stages are finished."""

    def report(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are finished."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_UPDATES:
            return
        if self._sending is not None:
            if not self._sending.done():
                return
            self._sending.result()
        self._last = now
        percent = self._percent(done / total if total else 0.0)
        run = copy_context().run  # the artifact belongs to the flow run of this context
        self._sending = self._sender.submit(run, self._show, percent, f"{stage}: {done} of {total}")

    def beside(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Ask the server for something else without waiting for its answer."""
        run = copy_context().run
        self._sending = self._sender.submit(run, lambda: call(*args, **kwargs))

    def finish(self) -> None:
        """Show that the run is done; nothing for a run so short that it never reported."""
        self._sender.shutdown()
        if self._sending is not None:
            self._sending.result()
        if self._artifact is not None:
            self._show(100.0, "finished")

    def _percent(self, of_stage: float) -> float:
        if self.recorder is None:
            return 0.0
        expected = max(self.recorder.expected_stages, len(self.recorder.facts) + 1)
        return round(100.0 * (len(self.recorder.facts) + of_stage) / expected, 1)

    def _show(self, percent: float, text: str) -> None:
        with _left_out():
            if self._artifact is None:
                created = ask(
                    lambda: create_progress_artifact(percent, key="progress", description=text),
                    "progress",
                    seconds=0.0,  # the next step reports again
                )
                self._artifact = created if isinstance(created, UUID) else None
            else:
                artifact = self._artifact
                ask(
                    lambda: update_progress_artifact(artifact, percent, description=text),
                    "progress",
                    seconds=0.0,
                )


def describe(flow_run_id: UUID, name: str, tags: list[str]) -> None:
    """Give a run a name and tags; without an answer of the server it keeps those it has."""
    with _left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
        client.update_flow_run(flow_run_id, name=name, tags=tags)


def publish(manifest: Manifest) -> None:
    """Leave the result, the manifest as a table, and a link to each file on the run's page.

    A Prefect server that does not answer costs the page, never the run.
    """
    with _left_out():
        _publish(manifest)


@contextmanager
def _left_out() -> Generator[None]:
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


def _publish(manifest: Manifest) -> None:
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
    on_page(
        lambda: create_markdown_artifact(
            f"{heading}\n\n{pictures}\n\nManifest: `{manifest.key}`",
            key="result",
            description=f"What {manifest.flow} made",
        )
    )
    if manifest.stages:
        rows = [_row(entry) for entry in manifest.stages]
        on_page(
            lambda: create_table_artifact(
                rows,
                key="manifest",
                description=f"Stages of this run; all of it in {manifest.key}",
            )
        )
    ends = current_store().link_ends(LINK_SECONDS)
    for ref in results[:MOST_LINKS]:
        link = current_store().link(ref, LINK_SECONDS)
        about = f"{ref.media_type}, {ref.bytes} bytes" + (f"; {ends}" if ends else "")
        on_page(
            lambda ref=ref, link=link, about=about: create_link_artifact(
                link,
                link_text=f"{ref.sha256[:12]}{ref.extension}",
                key=f"file-{ref.sha256[:12]}",
                description=about,
            )
        )


def _shown(ref: ArtifactRef) -> str:
    if ref.kind == "image":
        preview = picture_preview(load_image(ref))
    elif ref.kind == "video":
        preview = video_preview(current_store().fetch(ref))
    else:
        return f"`{ref.uri}`"
    size = f"{ref.width}x{ref.height}" + (f", {ref.frames} frames" if ref.frames else "")
    return f"![{ref.sha256[:12]}]({preview})\n\n`{ref.uri}` {size}"


def _served(entry: StageEntry) -> str:
    """The engine that did the work, and why those before it did not."""
    before = [f"not {each.engine_id}: {each.code}, {each.problem}" for each in entry.passed_over]
    return "; ".join([f"{entry.engine.engine_id} {entry.engine.version}", *before])


def _row(entry: StageEntry) -> dict[str, str]:
    return {
        "stage": cell(entry.name),
        "status": entry.status,
        "seconds": f"{entry.seconds:.2f}",
        "peak": f"{entry.peak_bytes / 2**20:.0f} MiB",
        "engine": cell(_served(entry)),
        "results": ", ".join(ref.sha256[:12] for ref in entry.results),
        "notes": cell("; ".join(entry.notes)),
    }
