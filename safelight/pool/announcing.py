"""Workers tell what they run with; the server itself keeps no more than their names."""

from collections.abc import Sequence

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


def announced(client: SyncPrefectClient, pool: str, worker: str) -> Announcement | None:
    """What a worker told last; None when it never did, or long ago."""
    page = client.read_events(
        EventFilter(
            event=EventNameFilter(name=[ONLINE]),
            resource=EventResourceFilter(id=[_resource(pool, worker)]),
        ),
        limit=1,  # the newest comes first
    )
    for event in page.events:
        try:
            return Announcement.model_validate(event.payload)
        except ValidationError:
            return None  # of another version
    return None


def _resource(pool: str, worker: str) -> str:
    return f"safelight.worker.{pool}.{worker}"
