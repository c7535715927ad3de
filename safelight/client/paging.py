"""Lists of the Prefect API, read to their end."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import Worker
from prefect.client.schemas.responses import DeploymentResponse


class _Entry(Protocol):
    @property
    def id(self) -> UUID:
        """Of its kind on the server."""
        ...


T = TypeVar("T", bound=_Entry)


def pages(read: Callable[[int], list[T]]) -> Iterator[T]:
    """Every entry of a list, once.

    Args:
        read: gives the entries from an offset on, as many as the server likes (it refuses to
            be asked for more than its PREFECT_SERVER_API_DEFAULT_LIMIT); none at the end.
    """
    seen: set[UUID] = set()
    offset = 0
    while found := read(offset):
        offset += len(found)
        for entry in found:
            if entry.id not in seen:  # what is added meanwhile moves the pages
                seen.add(entry.id)
                yield entry


def every_deployment(
    client: SyncPrefectClient, pool: str | None = None
) -> Iterator[DeploymentResponse]:
    """All deployments of the server, or those on one work pool."""
    wanted = None if pool is None else WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    return pages(lambda offset: client.read_deployments(work_pool_filter=wanted, offset=offset))


def every_worker(client: SyncPrefectClient, pool: str) -> Iterator[Worker]:
    """All workers of a work pool, those that are gone included."""
    return pages(lambda offset: client.read_workers_for_work_pool(pool, offset=offset))
