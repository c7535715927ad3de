"""How far a run is, in the Prefect UI."""

import base64
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, Self
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from flows.running.telling import Telling
from safelight.client.asking import ask, patient_client
from safelight.client.page import left_out
from tasks.base.recorder import Recorder

P = ParamSpec("P")
SECONDS_BETWEEN_UPDATES = 1.0
KEY = "progress"
"""Of the artifact; a run's page shows one of a key."""


PREVIEW = "preview"
"""Key of the artifact that shows what is being made."""
SECONDS_BETWEEN_VIEWS = 2.0
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class ProgressBoard:
    """One progress artifact a run, brought up to date at most once a second.

    A run that is over within the first second has none, unless an earlier try of it did: later ones
    go on with it. A thread of its own asks the server: however slow that is, no step waits for it.
    """

    def __init__(self, *, begun_before: bool = False, telling: Telling | None = None) -> None:
        self._begun_before = begun_before
        self._telling = telling
        self._artifact: UUID | None = None
        self._last = time.monotonic()
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._sending: Future[None] | None = None
        self._preview: UUID | None = None
        self._viewed = 0.0
        self._percent_shown = 0.0
        self.recorder: Recorder | None = None
        """The run's record; says how many stages are finished."""

    @classmethod
    def of(cls, flow_run: FlowRun | None) -> Self:
        """The board of a run; None has no server."""
        if flow_run is None:
            return cls()
        telling = Telling(flow_run.id, flow_run.run_count)
        return cls(begun_before=flow_run.run_count > 1, telling=telling)

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
        remark = self.recorder.remark if self.recorder is not None else ""
        text = f"{stage}: {done} of {total}" + (f", {remark}" if remark else "")
        self._sending = self._sender.submit(run, self._tell, percent, text, stage, done, total)

    def begun(self, stage: str) -> None:
        """A stage begins its work."""
        if self._telling is not None:
            self._telling.stage(stage, stage, "began")

    def ended(self) -> None:
        """The stage that was entered in the run's record last has ended."""
        if self._telling is not None and self.recorder is not None:
            facts = self.recorder.facts[-1]
            self._telling.stage(facts.name, facts.stage_type, facts.status)

    def view(self, picture: bytes) -> None:
        """Show a small picture of what a stage is making; not while the server is asked already."""
        if self._telling is not None:
            self._telling.picture(picture)
        now = time.monotonic()
        kind = next((kind for head, kind in _PICTURES.items() if picture.startswith(head)), None)
        busy = self._sending is not None and not self._sending.done()
        if kind is None or busy or now - self._viewed < SECONDS_BETWEEN_VIEWS:
            return
        self._viewed = now
        run = copy_context().run
        shown = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
        self._sending = self._sender.submit(run, self._show_picture, shown)

    def beside(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Ask the server for something else without waiting for its answer."""
        run = copy_context().run
        self._sending = self._sender.submit(run, lambda: call(*args, **kwargs))

    def finish(self) -> None:
        """Show that the run is done; nothing for a run so short that it never reported.

        What an earlier try showed last would else stand there for ever.
        """
        self._sender.shutdown()
        if self._sending is not None:
            self._sending.result()
        if self._telling is not None:
            self._telling.finish(self.recorder)
        if self._artifact is not None or self._begun_before:
            self._show(100.0, "finished")

    def _percent(self, of_stage: float) -> float:
        if self.recorder is None:
            return 0.0
        done = len(self.recorder.facts) + self.recorder.parts_done
        expected = max(self.recorder.expected_stages, done + 1)
        # what is drawn again adds stages: the bar waits then, and does not go back
        self._percent_shown = max(
            self._percent_shown, round(100.0 * (done + of_stage) / expected, 1)
        )
        return self._percent_shown

    def _tell(self, percent: float, text: str, stage: str, done: int, total: int) -> None:
        if self._telling is not None:
            self._telling.tell(percent, text, stage, done, total)
        self._show(percent, text)

    def _show(self, percent: float, text: str) -> None:
        with left_out():
            if self._artifact is None and self._begun_before:
                self._artifact = _shown_before()
            if self._artifact is None:
                created = ask(
                    lambda: create_progress_artifact(percent, key=KEY, description=text),
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

    def _show_picture(self, shown: str) -> None:
        with left_out():
            if self._preview is None:
                created = ask(
                    lambda: create_image_artifact(shown, key=PREVIEW, description="under way"),
                    "a preview",
                    seconds=0.0,
                )
                self._preview = created if isinstance(created, UUID) else None
            else:
                known = self._preview
                ask(lambda: _replace(known, shown), "a preview", seconds=0.0)


def _replace(artifact: UUID, shown: str) -> None:
    with patient_client(0.0, stops=False) as client:
        client.update_artifact(artifact, ArtifactUpdate(data=shown))


def _shown_before() -> UUID | None:
    """The artifact that the run of this context has already, left by an earlier try."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    only = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[context.flow_run.id]),
        key=ArtifactFilterKey(any_=[KEY]),
    )
    with patient_client(0.0, stops=False) as client:
        found = client.read_artifacts(artifact_filter=only)
    return found[0].id if found else None
