"""Sign-in by an OpenID Connect provider: code flow with state, nonce and PKCE, by authlib."""

import json
import os
import secrets
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client.oauth2_client import (
    httpx2,  # pyright: ignore[reportAttributeAccessIssue]
)
from authlib.integrations.starlette_client import OAuth, OAuthError
from authlib.integrations.starlette_client.apps import StarletteOAuth2App
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response

from safelight.access.keys import Scope
from safelight.errors import ContractMismatchError, EngineOfflineError
from safelight.gateway.problems import KeyRefusedError, ScopeError, UnknownRouteError
from safelight.gateway.signin.caller import Caller
from safelight.gateway.signin.sessions import hashed, person_id, share_of_people
from safelight.private import make_file, make_folder
from safelight.settings import settings

HTTPError = httpx2.HTTPError
"""Of the client that authlib found: httpx2, else httpx."""
COOKIE = "safelight_oidc"
CALLBACK = "/signin/oidc/callback"
MINUTES = 10
"""That somebody has to come back from the provider."""
SIGNED = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""How a provider may sign: never with a secret that others could have, never not at all."""


async def leave(request: Request, back: str, *, secure: bool) -> Response:
    """Send a browser to the provider.

    Args:
        request: of the browser.
        back: the path that it goes to in the end.
        secure: whether its cookie goes by https alone.

    Raises:
        EngineOfflineError: the provider does not answer.
    """
    provider = await _provider()
    session: dict[str, Any] = {}
    request.scope["session"] = session
    try:
        answer = await provider.authorize_redirect(request, _callback(request))
    except HTTPError as error:
        raise _away(error) from error
    token = secrets.token_urlsafe(32)
    await run_sync(_keep, token, {"session": session, "back": back})
    answer.set_cookie(
        COOKIE,
        token,
        max_age=MINUTES * 60,
        httponly=True,
        samesite="lax",
        secure=secure,
        path=CALLBACK,
    )
    return answer


async def arrive(request: Request) -> tuple[Caller, str]:
    """Whom the provider says the browser is of, and where it wanted to go.

    Raises:
        KeyRefusedError: it did not come from where we sent it, or the provider's word is not good.
        ScopeError: none of the claims allows anything.
        EngineOfflineError: the provider does not answer.
    """
    provider = await _provider()
    kept = await run_sync(_taken, request.cookies.get(COOKIE, ""))
    request.scope["session"] = kept["session"]
    try:
        token = await provider.authorize_access_token(request)
    except HTTPError as error:
        raise _away(error) from error
    except (OAuthError, AuthlibBaseError, JoseError, ValueError) as error:
        raise KeyRefusedError(
            f"the provider's word is not good: {type(error).__name__}", "sign in again at /signin"
        ) from error
    claims = token.get("userinfo")
    if not isinstance(claims, Mapping) or not claims.get("sub"):
        raise KeyRefusedError(
            "the provider does not say who it is", "have it give an id_token for the scope openid"
        )
    name = str(claims.get("email") or claims.get("preferred_username") or claims["sub"])
    actor = f"oidc:{name[:200]} ({str(claims['sub'])[:100]})"
    caller = Caller(actor, _scope_of(claims, name), person_id(actor), share_of_people())
    return caller, str(kept["back"])


def scopes_for(claims: Mapping[str, Any]) -> Scope | None:
    """The largest scope that a provider's claims give by the settings; None for none."""
    known = settings()
    found: Any = claims.get(known.oidc_claim, [])
    values = {str(each) for each in found} if isinstance(found, list) else {str(found)}
    for scope, listed in (
        (Scope.ADMIN, known.oidc_admins),
        (Scope.OPERATOR, known.oidc_operators),
        (Scope.VIEWER, known.oidc_viewers),
    ):
        wanted = {each.strip() for each in listed.split(",")} - {""}
        if "*" in wanted or values & wanted:
            return scope
    return None


def _scope_of(claims: Mapping[str, Any], name: str) -> Scope:
    found = scopes_for(claims)
    if found is None:
        raise ScopeError(
            f"{name[:200]} is in none of the groups that may use this gateway",
            "put them into one of SAFELIGHT_OIDC_VIEWERS, _OPERATORS or _ADMINS",
        )
    return found


async def _provider() -> StarletteOAuth2App:
    known = settings()
    if known.oidc_issuer is None:
        raise UnknownRouteError("no provider is set", "set SAFELIGHT_OIDC_ISSUER, or use a key")
    secret = known.oidc_client_secret
    made = _client(
        known.oidc_issuer.rstrip("/"),
        known.oidc_client_id,
        None if secret is None else secret.get_secret_value(),
        known.oidc_scope,
    )
    try:
        facts = await made.load_server_metadata()
    except HTTPError as error:
        raise _away(error) from error
    said = str(facts.get("issuer", ""))
    if said.rstrip("/") != known.oidc_issuer.rstrip("/"):
        raise ContractMismatchError(
            f"the provider calls itself {said[:200]!r}, expected {known.oidc_issuer}",
            "set SAFELIGHT_OIDC_ISSUER to what its /.well-known/openid-configuration says",
        )
    offered = facts.get("id_token_signing_alg_values_supported") or ["RS256"]
    facts["id_token_signing_alg_values_supported"] = [each for each in offered if each in SIGNED]
    return made


@lru_cache(maxsize=4)
def _client(issuer: str, client_id: str, secret: str | None, scope: str) -> StarletteOAuth2App:
    """One for each configuration: it remembers what the provider says of itself."""
    made = OAuth().register(
        "provider",
        client_id=client_id,
        client_secret=secret,
        server_metadata_url=f"{issuer}/.well-known/openid-configuration",
        client_kwargs={
            "scope": scope,
            "code_challenge_method": "S256",
            "timeout": 20,
            **({} if secret else {"token_endpoint_auth_method": "none"}),
        },
    )
    if not isinstance(made, StarletteOAuth2App):
        raise TypeError(type(made).__name__)
    return made


def _callback(request: Request) -> str:
    base = settings().gateway_url or str(request.base_url)
    return base.rstrip("/") + CALLBACK


def _away(error: Exception) -> EngineOfflineError:
    return EngineOfflineError(
        f"the sign-in provider does not answer: {type(error).__name__}", "try again, or use a key"
    )


def _folder() -> Path:
    return settings().volume_root.resolve() / "access" / "leaving"


def _keep(token: str, kept: dict[str, Any]) -> None:
    folder = _folder()
    make_folder(folder)
    oldest = time.time() - MINUTES * 60
    for path in folder.glob("*.json"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
    with os.fdopen(make_file(folder / f"{hashed(token)}.json"), "w") as file:
        json.dump(kept, file)


def _taken(token: str) -> dict[str, Any]:
    """What was kept of a browser that left; it can come back once."""
    path = _folder() / f"{hashed(token)}.json"
    try:
        text = path.read_text()
        made = path.stat().st_mtime
        path.unlink()  # whoever comes second finds none
    except FileNotFoundError:
        text, made = "", 0.0
    if made < time.time() - MINUTES * 60:
        raise KeyRefusedError(
            "the browser did not leave for the provider from here, or too long ago",
            "sign in again at /signin",
        )
    return json.loads(text)
