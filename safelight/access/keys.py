"""API keys, kept hashed in `access/keys` of the volume.

A key is `slk_ID_SECRET`; the secret is random, has 256 bits, and is shown once. Every question
reads the record anew, so that a key that is revoked is refused at once by all processes.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from safelight.audit.actors import actor
from safelight.audit.log import record
from safelight.errors import AuthInvalidError, InvalidFieldValueError, MissingFileError
from safelight.private import make_file, make_folder
from safelight.settings import settings

PREFIX = "slk"
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_ID = re.compile(r"[0-9a-f]{12}")
USED_SECONDS = 60
"""How exactly the last use is kept."""
LONGEST_NAME = 100


class Scope(StrEnum):
    """What somebody may do; each may what the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, wanted: "Scope") -> bool:
        """Whether it is enough."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)


class Limits(BaseModel):
    """How much a key may; None is no limit of its own."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests; None is `SAFELIGHT_KEY_REQUESTS_PER_MINUTE`."""
    runs_per_day: int | None = Field(default=None, ge=0)
    """Jobs of a day (UTC)."""
    gpu_seconds_per_day: float | None = Field(default=None, ge=0)
    """Seconds that its jobs of a day worked on a GPU."""
    usd_per_day: float | None = Field(default=None, ge=0)
    """What its jobs of a day cost at providers."""


class Key(Limits):
    """What is kept of a key."""

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Names it; the middle of the key itself."""
    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    """What people call it."""
    scope: Scope
    """What it may do."""
    digest: str
    """sha256 of its secret."""
    created: datetime
    """When it was made."""
    created_by: str
    """Who made it."""
    expires: datetime | None = None
    """From when on it is refused."""
    revoked: datetime | None = None
    """When it was taken back."""

    @property
    def actor(self) -> str:
        """How the audit calls it."""
        return f"key:{self.id} {self.name}"

    @property
    def state(self) -> str:
        """active, expired or revoked."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= _now() else "active"


def keys_folder() -> Path:
    """Where the records lie."""
    return settings().volume_root.resolve() / "access" / "keys"


def any_key() -> bool:
    """Whether a key was ever made here; one that was revoked counts, or access would open again."""
    with suppress(FileNotFoundError), os.scandir(keys_folder()) as found:
        return any(entry.name.endswith(".json") for entry in found)
    return False


def make_key(name: str, scope: Scope, days: float | None, limits: Limits) -> tuple[Key, str]:
    """Make a key.

    Args:
        name: what people call it.
        scope: what it may do.
        days: how long it is good; None is for ever.
        limits: how much it may.

    Returns:
        Its record, and the key itself, which nobody can read again.

    Raises:
        InvalidFieldValueError: the name or the time is outside its limits.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidFieldValueError(
            f"the name has {len(name)} characters, expected 1 to {LONGEST_NAME}, all printable",
            "give the key another name",
        )
    if days is not None and not 0 < days <= 36500:
        raise InvalidFieldValueError(
            f"the key is to be good for {days:g} days, expected more than 0 and at most 36500",
            "correct --days",
        )
    secret = secrets.token_urlsafe(32)
    key = Key(
        **limits.model_dump(),
        id=secrets.token_hex(6),
        name=name,
        scope=scope,
        digest=_digest(secret),
        created=_now(),
        created_by=actor(),
        expires=None if days is None else _now() + timedelta(days=days),
    )
    ends = None if key.expires is None else key.expires.isoformat(timespec="seconds")
    record("key.made", key.id, {"name": name, "scope": scope.value, "expires": ends})
    _keep(key)
    return key, f"{PREFIX}_{key.id}_{secret}"


def list_keys() -> list[Key]:
    """All keys, the oldest first."""
    found = [Key.model_validate_json(path.read_bytes()) for path in keys_folder().glob("*.json")]
    return sorted(found, key=lambda key: (key.created, key.id))


def find_key(key_id: str) -> Key:
    """The record of a key.

    Raises:
        MissingFileError: there is none of this id.
    """
    path = keys_folder() / f"{key_id}.json"
    if not _ID.fullmatch(key_id) or not path.is_file():
        raise MissingFileError(
            f"there is no key {key_id[:80]!r}", "take an id of: safelight keys list"
        )
    return Key.model_validate_json(path.read_bytes())


def revoke_key(key_id: str) -> Key:
    """Take a key back; whoever sends it is refused from now on.

    Raises:
        MissingFileError: there is none of this id.
    """
    key = find_key(key_id)
    if key.revoked is not None:
        return key
    key = key.model_copy(update={"revoked": _now()})
    record("key.revoked", key.id, {"name": key.name})
    _keep(key)
    return key


def recognised(token: str) -> Key:
    """The key that somebody sent.

    Raises:
        AuthInvalidError: it is none of ours, or no longer good.
    """
    parts = _TOKEN.fullmatch(token)
    known: Key | None = None
    if parts is not None:
        with suppress(MissingFileError):
            known = find_key(parts[1])
    if parts is None or known is None or not hmac.compare_digest(known.digest, _digest(parts[2])):
        raise AuthInvalidError("the key is none of this gateway's", "send a key that is")
    require_good(known)
    _note_use(known)
    return known


def require_good(key: Key) -> None:
    """Refuse a key whose time is over.

    Raises:
        AuthInvalidError: it was revoked, or has expired.
    """
    if key.state != "active":
        raise AuthInvalidError(
            f"key {key.id} is {key.state}", "ask for another: safelight keys create"
        )


def last_use(key: Key) -> datetime | None:
    """When it was last sent, to the minute; None for never."""
    with suppress(FileNotFoundError):
        return datetime.fromtimestamp(_used(key).stat().st_mtime, UTC)
    return None


def _note_use(key: Key) -> None:
    path = _used(key)
    try:
        if time.time() - path.stat().st_mtime > USED_SECONDS:
            os.utime(path)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.close(make_file(path))


def _used(key: Key) -> Path:
    return keys_folder() / f"{key.id}.used"


def _keep(key: Key) -> None:
    folder = keys_folder()
    make_folder(folder)
    half = folder / f".{key.id}.{secrets.token_hex(4)}"
    with os.fdopen(make_file(half), "wb") as file:
        file.write(key.model_dump_json(indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, folder / f"{key.id}.json")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
