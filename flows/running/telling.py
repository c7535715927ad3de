"""What a run tells while it goes on, as events of the server: its steps, stages and pictures.

At most one event a second, whatever happens in it, and none of a run that is over within the first.
They are numbered, so that whoever hears them knows what is missing.
"""

import time
from threading import Lock
from uuid import UUID

from prefect.events import emit_event
from pydantic import JsonValue

from safelight.client.telling import EVENT, LARGEST_PREVIEW, MOST_STAGES, resource_of
from safelight.engines.machine.measure import absent_seconds
from safelight.errors import PipelineError
from safelight.media.images import decode_image
from safelight.media.previews import picture_preview
from safelight.progress import is_given_up
from tasks.base.recorder import Recorder

SECONDS_BETWEEN = 1.0


class Telling:
    """Of one try of one run."""

    def __init__(self, flow_run_id: UUID, number: int) -> None:
        self._flow_run_id = flow_run_id
        self._number = number
        self._sequence = 0
        self._began = self._last = time.monotonic()
        self._away = absent_seconds()
        self._stages: list[dict[str, JsonValue]] = []
        self._picture: bytes | None = None
        self._lock = Lock()

    @property
    def due(self) -> bool:
        """Whether an event may be sent."""
        return time.monotonic() - self._last >= SECONDS_BETWEEN

    def stage(self, name: str, stage_type: str, status: str) -> None:
        """A stage began or ended; told with the next event."""
        with self._lock:
            self._stages.append({"name": name, "stage_type": stage_type, "status": status})

    def picture(self, picture: bytes) -> None:
        """What is being made, PNG or JPEG; the latest is told with the next event."""
        self._picture = picture

    def tell(
        self, percent: float, text: str, stage: str = "", step: int = 0, steps: int = 0
    ) -> None:
        """Send an event with all that is new."""
        self._last = now = time.monotonic()
        passed = now - self._began - (absent_seconds() - self._away)
        left = passed / percent * (100 - percent) if percent >= 1 else None
        self._send(
            {
                "percent": percent,
                "text": text,
                "stage": stage,
                "step": step,
                "steps": steps,
                "eta_seconds": None if left is None else round(left, 1),
            }
        )

    def finish(self, recorder: Recorder | None) -> None:
        """Send what is left, and that nothing more comes; nothing of a run that told nothing."""
        if self._sequence or self.due:
            done = len(recorder.facts) if recorder is not None else 0
            self._send({"percent": 100.0, "text": f"{done} stages are finished", "last": True})

    def _send(self, told: dict[str, JsonValue]) -> None:
        if is_given_up():  # whoever has the run now tells of it
            return
        with self._lock:
            stages, self._stages = self._stages, []
            picture, self._picture = self._picture, None
            self._sequence += 1
            number = self._sequence
        shown = None if picture is None else _small(picture)
        emit_event(
            EVENT,
            resource=resource_of(self._flow_run_id),
            payload={
                "try": self._number,
                "number": number,
                **told,
                **({"stages": [*stages[-MOST_STAGES:]]} if stages else {}),
                **({"preview": shown} if shown else {}),
            },
        )


def _small(picture: bytes) -> str | None:
    """As a data: URI of at most so many bytes; None of what is no picture."""
    try:
        return picture_preview(decode_image(picture), longest=LARGEST_PREVIEW)
    except PipelineError:
        return None
