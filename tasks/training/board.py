"""A training on its run's page while it goes on: loss, time left, the curve, sample pictures."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Self
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.context import FlowRunContext

from safelight.client.asking import patient_client
from safelight.client.markdown import code
from safelight.client.page import PAGE_SECONDS, left_out
from safelight.engines.training import Point
from safelight.media.curves import curve, smoothed
from safelight.media.previews import picture_preview
from safelight.media.sheets import contact_sheet
from safelight.pixels import Pixels
from safelight.store.store import Store
from tasks.base.inline import is_inline
from tasks.base.recorder import recorder
from tasks.training.files import Checkpoints

KEY = "training"
"""Of the artifact; a run's page shows one of a key."""
SECONDS_BETWEEN_UPDATES = 5.0
COLUMNS, CELL = 4, 192
"""Of sample sheets."""


class TrainingBoard(Checkpoints):
    """Keeps checkpoints and shows how the training goes; a thread of its own asks the server.

    Args:
        store: where checkpoints lie.
        key: of the stage.
        dataset: sha256 of what is learnt.
    """

    def __init__(self, store: Store, key: str, dataset: str) -> None:
        super().__init__(store, key, dataset)
        run = FlowRunContext.get()
        self._run = run.flow_run.id if run and run.flow_run and not is_inline() else None
        self._artifact: UUID | None = None
        self._looked = False
        self._last = 0.0
        self._point: Point | None = None
        self._losses: Sequence[float] = ()
        self._sheets: dict[int, Pixels] = {}
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="training")
        self._sending: Future[None] | None = None

    def __enter__(self) -> Self:
        """Watch a training."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Show how it ended; what it has finished needs no checkpoints."""
        recorder().remark = ""
        self._show(last=True)
        self._sender.shutdown()
        if kind is None:
            self.forget()

    def told(self, point: Point, losses: Sequence[float]) -> None:
        """Show how far it is, now and then."""
        self._point, self._losses = point, losses
        recorder().remark = remark_of(point, losses)
        if time.monotonic() - self._last >= SECONDS_BETWEEN_UPDATES:
            self._show()

    def sampled(self, step: int, prompts: Sequence[str], pictures: Sequence[Pixels]) -> None:
        """Show pictures; those before the first step stay beside the latest."""
        shown = [*zip(prompts, pictures, strict=True)]
        title = "before the training" if step == 0 else f"after {step} steps"
        sheet = contact_sheet(shown, COLUMNS, CELL, title=title)
        first = {0: self._sheets[0]} if 0 in self._sheets else {}
        self._sheets = {**first, step: sheet}
        self._show(last=True)

    def _show(self, *, last: bool = False) -> None:
        if self._run is None or (self._point is None and not self._sheets):
            return
        if self._sending is not None and not self._sending.done():
            if not last:
                return
            self._sending.result()
        self._last = time.monotonic()
        page = self._page()
        run = copy_context().run
        self._sending = self._sender.submit(run, self._send, page)

    def _page(self) -> str:
        parts: list[str] = []
        if self._point is not None:
            parts.append(told_of(self._point, self._losses))
            parts.append(f"![loss]({picture_preview(curve(self._losses, 'loss'))})")
        for step, sheet in self._sheets.items():
            parts.append(f"![samples of step {step}]({picture_preview(sheet)})")
        return "\n\n".join(parts)

    def _send(self, page: str) -> None:
        with left_out(), patient_client(PAGE_SECONDS, stops=False) as client:
            if (
                self._artifact is None and not self._looked and self._run is not None
            ):  # an earlier try may have left it
                self._looked = True
                only = ArtifactFilter(
                    flow_run_id=ArtifactFilterFlowRunId(any_=[self._run]),
                    key=ArtifactFilterKey(any_=[KEY]),
                )
                found = client.read_artifacts(artifact_filter=only)
                self._artifact = found[0].id if found else None
            if self._artifact is None:
                created = client.create_artifact(
                    ArtifactCreate(
                        type="markdown",
                        key=KEY,
                        description="How the training goes",
                        data=page,
                        flow_run_id=self._run,
                    )
                )
                self._artifact = created.id
            else:
                client.update_artifact(self._artifact, ArtifactUpdate(data=page))


def told_of(point: Point, losses: Sequence[float]) -> str:
    """One line for people."""
    return code(f"step {point.step} of {point.steps}, {remark_of(point, losses)}")


def remark_of(point: Point, losses: Sequence[float]) -> str:
    """Loss and time left, beside a number of steps that is told already."""
    left = "" if point.seconds_left is None else f", {_time(point.seconds_left)} left"
    return f"loss {float(smoothed(losses)[-1]):.4f}{left}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
