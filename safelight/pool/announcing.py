"""Workers tell what they run with; the server itself keeps no more than their names."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from pydantic import BaseModel, ValidationError

from safelight.pool.devices import Device
from safelight.provenance.surroundings import versions

ONLINE = "safelight.worker.online"
"""Event a worker sends when it starts, and from time to time afterwards."""
ANNOUNCE_SECONDS = 3600.0
"""How often; the server forgets events after some days."""
PAGE = 50
"""Events that a server gives at once."""


class Announcement(BaseModel):
    """What a worker tells about itself."""

    versions: dict[str, str]
    """Package to version, as in a manifest."""
    devices: dict[str, float]
    """Device to its memory, GiB."""


def announce(pool: str, worker: str, devices: Sequence[Device]) -> None:
    """Send the event of a worker."""
    told = Announcement(
        versions=versions(), devices={device.name: device.memory_gib for device in devices}
    )
    emit_event(
        ONLINE,
        resource={"prefect.resource.id": _resource(pool, worker), "prefect.resource.name": worker},
        payload=told.model_dump(),
    )


def announced(
    client: SyncPrefectClient, pool: str, workers: Iterable[str]
) -> dict[str, Announcement]:
    """What workers of a pool told last, by name; without those that never did, or long ago.

    One question serves them all, unless they told so much that the latest page has not everyone.
    """
    left = {_resource(pool, worker): worker for worker in workers}
    found: dict[str, Announcement] = {}
    while left:
        limit = PAGE if len(left) > 1 else 1  # the newest come first
        events = client.read_events(
            EventFilter(
                event=EventNameFilter(name=[ONLINE]), resource=EventResourceFilter(id=[*left])
            ),
            limit=limit,
        ).events
        for event in events:
            worker = left.pop(event.resource.id, None)
            if worker is not None:
                with suppress(ValidationError):  # of another version
                    found[worker] = Announcement.model_validate(event.payload)
        if len(events) < limit:
            break
    return found


def _resource(pool: str, worker: str) -> str:
    return f"safelight.worker.{pool}.{worker}"
