"""Routes of the sign-in, and of keys."""

import re
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.responses import JSONResponse, RedirectResponse

from safelight.access.keys import (
    LONGEST_NAME,
    Key,
    Limits,
    Scope,
    last_use,
    list_keys,
    make_key,
    recognised,
    revoke_key,
)
from safelight.errors import AuthInvalidError
from safelight.gateway.guard import FORM
from safelight.gateway.problems import ForgedRequestError, KeyRefusedError
from safelight.gateway.signin import oidc
from safelight.gateway.signin.caller import Caller, caller_of, of_key
from safelight.gateway.signin.pages import sign_in_page, signed_in_page
from safelight.gateway.signin.recognising import CSRF, same
from safelight.gateway.signin.refusals import CODE
from safelight.gateway.signin.sessions import COOKIE, begin, end
from safelight.loopback import is_loopback
from safelight.settings import settings

router = APIRouter(tags=["sign-in"])
BACK = re.compile(r"/(?![/\\])[^\x00-\x1f\x7f\\]{0,1000}")
"""Paths of our own."""
HOME = "/"
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$", description="Of the key.")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Known(_Frozen):
    """Who asks."""

    actor: str
    """How the audit calls them."""
    scope: Scope | None
    """What they may do; null is what everybody may."""
    csrf: str | None
    """What pages of the session send in the header X-CSRF-Token with changes."""


class NewKey(Limits):
    """A key that is to be made."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    """What people call it."""
    scope: Scope = Scope.OPERATOR
    """What it may do."""
    days: float | None = Field(default=None, gt=0, le=36500)
    """How long it is good; null is for ever."""


class KeyFacts(Limits):
    """What is known of a key."""

    id: str
    """Names it."""
    name: str
    """What people call it."""
    scope: Scope
    """What it may do."""
    state: str
    """active, expired or revoked."""
    created: datetime
    """When it was made."""
    created_by: str
    """Who made it."""
    expires: datetime | None
    """From when on it is refused."""
    revoked: datetime | None
    """When it was taken back."""
    last_use: datetime | None
    """To the minute."""


class MadeKey(KeyFacts):
    """A key that was made."""

    key: str
    """The key itself; it is not told again."""


class Keys(_Frozen):
    """All keys."""

    total: int
    """How many there are."""
    keys: list[KeyFacts]
    """The oldest first."""


@router.get("/api/me")
def read_caller(request: Request) -> Known:
    """Who asks, and what they may do."""
    caller = caller_of(request.scope)
    return Known(actor=caller.actor, scope=caller.scope, csrf=caller.csrf or None)


@router.get("/api/keys")
def list_all_keys() -> Keys:
    """All keys."""
    found = list_keys()
    return Keys(total=len(found), keys=[KeyFacts.model_validate(_facts(key)) for key in found])


@router.post("/api/keys", status_code=201)
def create_key(wanted: NewKey) -> MadeKey:
    """Make a key; it is told once."""
    limits = Limits.model_validate(wanted.model_dump(include=set(Limits.model_fields)))
    made, token = make_key(wanted.name, wanted.scope, wanted.days, limits)
    return MadeKey.model_validate({**_facts(made), "key": token})


@router.delete("/api/keys/{key_id}")
def delete_key(key_id: KeyId) -> KeyFacts:
    """Take a key back; its record stays."""
    return KeyFacts.model_validate(_facts(revoke_key(key_id)))


@router.get("/signin", include_in_schema=False)
def show_sign_in(
    request: Request,
    back: Annotated[str, Query(alias="next", max_length=3000)] = HOME,
) -> Response:
    """The page of the sign-in, or who is signed in."""
    caller = caller_of(request.scope)
    if caller.session:
        return signed_in_page(caller.actor, caller.csrf)
    return _form(request, _ours(back))


@router.post("/signin", include_in_schema=False)
async def sign_in(request: Request) -> Response:
    """Begin a session with a key, which a form or a JSON object holds."""
    fields = await _fields(request)
    token = str(fields.get("key", ""))
    as_form = _is_form(request)
    try:
        key = await run_sync(recognised, token.strip())
    except AuthInvalidError as error:
        if not as_form:
            raise KeyRefusedError(error.problem, error.remedy) from error
        request.scope[CODE] = error.code
        return _form(request, _ours(str(fields.get("next", HOME))), error.problem, 401)
    made = await run_sync(lambda: begin(of_key(key), key=key.id))
    if as_form:
        answer: Response = RedirectResponse(_ours(str(fields.get("next", HOME))), 303)
    else:
        answer = JSONResponse({"actor": key.actor, "scope": key.scope})
    keep_session(request, answer, made)
    return answer


@router.post("/signout", include_in_schema=False)
async def sign_out(request: Request) -> Response:
    """End the session."""
    caller = caller_of(request.scope)
    if caller.session:
        fields = await _fields(request) if _is_form(request) else {}
        given = request.headers.get(CSRF) or str(fields.get("csrf", ""))
        if not same(given, caller.csrf):
            raise ForgedRequestError(
                "the request has not the token of its session", "load the page again"
            )
        await run_sync(end, caller)
    answer = RedirectResponse("/signin", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=_beyond(request))
    return answer


@router.get("/signin/oidc", include_in_schema=False)
async def go_to_provider(
    request: Request, back: Annotated[str, Query(alias="next", max_length=3000)] = HOME
) -> Response:
    """Ask the provider who somebody is."""
    return await oidc.leave(request, _ours(back), secure=_beyond(request))


@router.get("/signin/oidc/callback", include_in_schema=False)
async def come_from_provider(request: Request) -> Response:
    """Begin a session for whom the provider says it is."""
    caller, back = await oidc.arrive(request)
    made = await run_sync(lambda: begin(caller, key=None))
    answer = RedirectResponse(_ours(back), 303)
    keep_session(request, answer, made)
    answer.delete_cookie(oidc.COOKIE, httponly=True, samesite="lax", secure=_beyond(request))
    return answer


def keep_session(request: Request, answer: Response, token: str) -> None:
    """Have the browser keep a session."""
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(settings().session_hours * 3600),
        httponly=True,
        samesite="lax",  # strict would not be sent on the way back from a provider
        secure=_beyond(request),
        path="/",
    )


def _form(request: Request, back: str, problem: str = "", status: int = 200) -> Response:
    return sign_in_page(
        back=back,
        provider=settings().oidc_issuer is not None,
        problem=problem,
        encrypted=not _beyond(request) or _by_https(request),
        status=status,
    )


def _beyond(request: Request) -> bool:
    """Whether the browser is not on this machine, so that its cookie must be encrypted."""
    return not is_loopback(request.url.hostname or "")


def _by_https(request: Request) -> bool:
    return (settings().gateway_url or "").startswith("https://") or request.url.scheme == "https"


def _ours(back: str) -> str:
    """Where to go afterwards: to a path of our own, wherever a link wanted to lead."""
    return back if BACK.fullmatch(unquote(back)) and BACK.fullmatch(back) else HOME


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith(FORM)


async def _fields(request: Request) -> dict[str, Any]:
    if _is_form(request):
        async with request.form(max_files=0, max_fields=10) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    try:
        found = await request.json()
    except ValueError as error:
        raise KeyRefusedError("the body is no JSON", 'send {"key": KEY}') from error
    return found if isinstance(found, dict) else {}


def _facts(key: Key) -> dict[str, JsonValue]:
    used = last_use(key)
    facts = key.model_dump(mode="json", exclude={"digest"})
    return {**facts, "state": key.state, "last_use": None if used is None else used.isoformat()}


__all__ = ["Caller", "keep_session", "router"]
