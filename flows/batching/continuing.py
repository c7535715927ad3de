"""The checked requests of a batch that is under way, kept so that it goes on in seconds.

Reading and checking a hundred thousand anew takes longer. Who retries a batch asks for it again:
then its file is read anew, which may have been corrected.
"""

import json
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from prefect.context import FlowRunContext
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.batching.catalogue import Catalogue
from flows.batching.runs import asked_for
from safelight.client.asking import patient_client
from safelight.errors import PipelineError
from safelight.store.store import current_store

REQUESTS = "outputs/batches/requests/"
FEWEST = 2000
"""Requests that are kept; fewer are read anew as fast."""
PART = 2000
"""Requests of an object."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    asked_for: datetime
    name: str
    """Of the batch."""
    requests: int


class Continuing:
    """The requests that this run of a batch has kept."""

    def __init__(self) -> None:
        self._run = self._own()
        self._asked_for: datetime | None = None

    def found(self) -> tuple[str, Catalogue] | None:
        """Name and requests of the batch, where this run began it before; else None."""
        head = self._head()
        if head is None or head.asked_for != self._when():
            return None
        catalogue = Catalogue()
        for first in range(0, head.requests, PART):
            try:
                rows = json.loads(current_store().read_record(self._part(first)))
            except PipelineError:
                return None
            catalogue.take(map(tuple, rows))
        return head.name, catalogue

    def keep(self, name: str, catalogue: Catalogue) -> None:
        """Keep them, where they are many."""
        when = self._when() if len(catalogue) >= FEWEST else None
        if when is None:
            return
        for first in range(0, len(catalogue), PART):
            rows = json.dumps(catalogue.written(first, PART))
            current_store().write_record(self._part(first), rows.encode())
        head = _Kept(asked_for=when, name=name, requests=len(catalogue))
        current_store().settle()  # the parts first
        current_store().write_record(f"{self._place}.json", head.model_dump_json().encode())

    def forget(self) -> None:
        """The batch has ended."""
        head = self._head()
        if head is None:
            return
        backend = current_store().backend
        for key in (f"{self._place}.json", *map(self._part, range(0, head.requests, PART))):
            backend.delete(key)

    def _own(self) -> UUID | None:
        context = FlowRunContext.get()
        return context.flow_run.id if context and context.flow_run else None

    @property
    def _place(self) -> str:
        return f"{REQUESTS}{self._run}"

    def _part(self, first: int) -> str:
        return f"{self._place}/{first // PART:05}.json"

    def _head(self) -> _Kept | None:
        if self._run is None:
            return None
        with suppress(PipelineError, ValidationError):
            return _Kept.model_validate_json(current_store().read_record(f"{self._place}.json"))
        return None

    def _when(self) -> datetime | None:
        if self._asked_for is None and self._run is not None:
            with patient_client() as client:
                self._asked_for = asked_for(client, self._run)
        return self._asked_for
