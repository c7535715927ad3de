"""Sessions of browsers, kept hashed in `access/sessions` of the volume, so that they outlive us."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from safelight.access.keys import Limits, Scope, find_key, require_good
from safelight.audit.log import record
from safelight.errors import AuthInvalidError, MissingFileError, PipelineError
from safelight.gateway.problems import KeyRefusedError
from safelight.gateway.signin.caller import Caller, of_key
from safelight.private import make_file, make_folder
from safelight.settings import settings

COOKIE = "safelight_session"


class Session(BaseModel):
    """What is kept of a session."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    key: str | None
    """Id of the key it began with; None where a provider said who it is."""
    name: str
    """Whom the audit names."""
    scope: Scope
    """What the person may do; of a key, what the key says now counts."""
    expires: datetime
    """From when on it is refused."""


def begin(caller: Caller, *, key: str | None) -> str:
    """Begin a session; what the cookie holds.

    Args:
        caller: who signed in.
        key: the id of their key; None where a provider said who they are.
    """
    folder = sessions_folder()
    make_folder(folder)
    _sweep(folder)
    token = secrets.token_urlsafe(32)
    kept = Session(
        key=key,
        name=caller.actor,
        scope=caller.scope or Scope.VIEWER,
        expires=datetime.now(UTC) + timedelta(hours=settings().session_hours),
    )
    record("session.begun", caller.id, {"expires": kept.expires.isoformat()}, actor=caller.actor)
    with os.fdopen(make_file(folder / f"{hashed(token)}.json"), "wb") as file:
        file.write(kept.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    return token


def of_session(token: str) -> Caller:
    """Who has a session.

    Raises:
        KeyRefusedError: it is none of ours, or over, or its key is.
    """
    digest = hashed(token)
    try:
        kept = Session.model_validate_json((sessions_folder() / f"{digest}.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise _over("is none of this gateway's") from error
    if kept.expires <= datetime.now(UTC):
        raise _over("has expired")
    if kept.key is None:
        found = Caller(kept.name, kept.scope, person_id(kept.name), share_of_people())
    else:
        try:
            key = find_key(kept.key)
            require_good(key)
        except (AuthInvalidError, MissingFileError) as error:
            raise _over(f"began with a key that is no longer good: {error.problem}") from error
        found = of_key(key)
    return Caller(found.actor, found.scope, found.id, found.limits, digest, csrf_of(token))


def end(caller: Caller) -> None:
    """Sign out."""
    if caller.session:
        record("session.ended", caller.id, actor=caller.actor)
        (sessions_folder() / f"{caller.session}.json").unlink(missing_ok=True)


def csrf_of(token: str) -> str:
    """What a page of the session sends with changes; no other session has the same."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def person_id(name: str) -> str:
    """Names a person whom a provider knows, in tags of runs."""
    return f"oidc-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def share_of_people() -> Limits:
    """How much each person may whom a provider names: as the settings say now."""
    known = settings()
    return Limits(
        requests_per_minute=known.oidc_requests_per_minute,
        runs_per_day=known.oidc_runs_per_day,
        gpu_seconds_per_day=known.oidc_gpu_seconds_per_day,
        usd_per_day=known.oidc_usd_per_day,
    )


def hashed(token: str) -> str:
    """Under which name a session is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def sessions_folder() -> Path:
    """Where sessions lie."""
    return settings().volume_root.resolve() / "access" / "sessions"


def _over(why: str) -> PipelineError:
    return KeyRefusedError(f"the session {why}", "sign in again at /signin")


def _sweep(folder: Path) -> None:
    oldest = (datetime.now(UTC) - timedelta(hours=settings().session_hours)).timestamp()
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()
