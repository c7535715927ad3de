"""Global concurrency limits, so that work pools that know nothing of GPUs share them."""

from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.client.paging import every_deployment
from safelight.errors import InvalidFieldValueError


class Slots(BaseModel):
    """One limit, as the file describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """Name of the global concurrency limit."""
    limit: int = Field(ge=0)
    """Runs at a time, when the limit is made; one that is there keeps its own."""
    pool_types: tuple[str, ...] = ()
    """Deployments on work pools of these types take a slot for each run."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: tuple[Slots, ...]


def read_limits(file: Path) -> tuple[Slots, ...]:
    """The limits in a file.

    Raises:
        InvalidFieldValueError: it does not describe limits.
    """
    try:
        return _File.model_validate(yaml.safe_load(file.read_text())).limits
    except (yaml.YAMLError, ValidationError) as error:
        raise InvalidFieldValueError(
            f"{file.name} does not describe limits: {error}", f"correct {file}"
        ) from error


def apply_limits(client: SyncPrefectClient, limits: tuple[Slots, ...], pool: str) -> None:
    """Make the limits that are not there, and put the deployments on a pool under theirs."""
    kind = client.read_work_pool(pool).type
    ids = {limit.name: _id(client, limit) for limit in limits}
    wanted = [ids[limit.name] for limit in limits if kind in limit.pool_types]
    for deployment in list(every_deployment(client, pool)):
        under = deployment.global_concurrency_limit
        now = str(under.id) if under else None
        # another limit than ours is the operator's own choice
        if wanted and now is None:
            _put_under(client, str(deployment.id), wanted[0])
        elif not wanted and now in ids.values():
            _put_under(client, str(deployment.id), None)


def _put_under(client: SyncPrefectClient, deployment: str, limit: str | None) -> None:
    client.request(
        "PATCH",
        "/deployments/{id}",
        path_params={"id": deployment},
        json={"global_concurrency_limit_id": limit},
    ).raise_for_status()


def _id(client: SyncPrefectClient, limit: Slots) -> str:
    try:
        return str(client.read_global_concurrency_limit_by_name(limit.name).id)
    except ObjectNotFound:
        created = GlobalConcurrencyLimitCreate(name=limit.name, limit=limit.limit)
        return str(client.create_global_concurrency_limit(created))
