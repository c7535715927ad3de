"""Web hooks and what is still to be told, as the store keeps them."""

import base64
import secrets
from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from safelight.errors import MissingFileError
from safelight.gateway.jobs import Status
from safelight.gateway.workflows import WorkflowType
from safelight.store.store import current_store

PREFIX = "gateway/hooks/"
DELIVERIES = "gateway/deliveries/"
SEEN = "gateway/hooks-seen.json"
ENDS = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
MOST_HOOKS = 100


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Hook(_Kept):
    """A web hook."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Names it."""
    url: str = Field(max_length=2000)
    """Who is told."""
    statuses: tuple[Status, ...] = ENDS
    """Ends that are told."""
    workflow_types: tuple[WorkflowType, ...] = ()
    """Kinds of work; empty is all."""
    named: bool = False
    """Whether only jobs are told that name it in `hooks`."""
    created_at: datetime
    """When it was made."""


class KeptHook(Hook):
    """The same with what signs."""

    secret: str
    """`whsec_` and a key in base64."""

    @property
    def shown(self) -> Hook:
        """Without the secret."""
        return Hook.model_validate(self.model_dump(exclude={"secret"}))

    @property
    def key(self) -> bytes:
        """What signs."""
        return base64.b64decode(self.secret.removeprefix("whsec_"))


class Delivery(_Kept):
    """Something that one hook is told."""

    hook_id: str
    """Who is told."""
    job_id: UUID
    """Of the job."""
    state_id: UUID
    """Of its end; a job that runs again ends again."""
    ended_at: datetime
    """When it ended."""
    tries: int = 0
    """How often it was sent."""
    next_at: datetime
    """When it is sent again."""
    done: bool = False
    """Whether it was taken, or given up."""
    last: str = ""
    """How the last try ended."""

    @property
    def key(self) -> str:
        """Where the store has it."""
        return f"{DELIVERIES}{self.hook_id}/{self.job_id}-{self.state_id}.json"

    @property
    def message_id(self) -> str:
        """The same in every try, so that the other side knows it again."""
        return f"msg_{self.job_id}_{self.state_id}"


class _Seen(_Kept):
    until: datetime


def new_secret() -> SecretStr:
    """A key of 32 random bytes."""
    return SecretStr("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


def keep_hook(hook: KeptHook) -> None:
    """Keep a hook."""
    current_store().write_record(f"{PREFIX}{hook.id}.json", hook.model_dump_json().encode())


def find_hook(hook_id: str) -> KeptHook:
    """The hook of an id.

    Raises:
        MissingFileError: there is none.
    """
    try:
        return KeptHook.model_validate_json(current_store().read_record(f"{PREFIX}{hook_id}.json"))
    except (MissingFileError, ValidationError) as error:
        raise MissingFileError(
            f"there is no web hook {hook_id}", "take an id that /api/hooks lists"
        ) from error


def all_hooks() -> list[KeptHook]:
    """All hooks, the first one first."""
    store = current_store()
    found: list[KeptHook] = []
    for key in store.backend.list(PREFIX):
        try:
            found.append(KeptHook.model_validate_json(store.read_record(key)))
        except (MissingFileError, ValidationError):
            continue
    return sorted(found, key=lambda hook: hook.created_at)


def forget_hook(hook_id: str) -> None:
    """Remove a hook, and what it was to be told."""
    backend = current_store().backend
    for key in (f"{PREFIX}{hook_id}.json", *backend.list(f"{DELIVERIES}{hook_id}/")):
        backend.delete(key)


def deliveries(hook_id: str | None = None) -> list[Delivery]:
    """What hooks were told and are to be told; None is all hooks."""
    store = current_store()
    prefix = DELIVERIES if hook_id is None else f"{DELIVERIES}{hook_id}/"
    found: list[Delivery] = []
    for key in store.backend.list(prefix):
        try:
            found.append(Delivery.model_validate_json(store.read_record(key)))
        except (MissingFileError, ValidationError):
            continue
    return sorted(found, key=lambda each: each.ended_at)


def keep_delivery(delivery: Delivery) -> None:
    """Keep a delivery as it stands."""
    current_store().write_record(delivery.key, delivery.model_dump_json().encode())


def seen_until() -> datetime:
    """Up to when ends of jobs were looked at; now, the first time."""
    try:
        return _Seen.model_validate_json(current_store().read_record(SEEN)).until
    except (MissingFileError, ValidationError):
        return datetime.now(UTC)


def keep_seen(until: datetime) -> None:
    """Keep up to when ends of jobs were looked at."""
    current_store().write_record(SEEN, _Seen(until=until).model_dump_json().encode())
