"""The page of the sign-in: no scripts, nothing of other hosts."""

import base64
import hashlib
from html import escape

from starlette.responses import HTMLResponse

STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:15vh auto;padding:0 1rem}"
    "label,input,button,a{display:block;margin:.5rem 0}"
    "input,button{font:inherit;width:100%;box-sizing:border-box;padding:.5rem}"
    "[role=alert]{border-left:.25rem solid #b00020;padding-left:.75rem}"
)
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
TITLE = "Sign in to Safelight"
KEY = "API key"
SIGN_IN = "Sign in"
BY_PROVIDER = "Sign in with your organisation"
SIGNED_IN_AS = "Signed in as"
SIGN_OUT = "Sign out"
NOT_ENCRYPTED = (
    "This address is not encrypted, so browsers keep no session here. Reach the gateway by https, "
    "or from its own machine."
)


def sign_in_page(
    *,
    back: str,
    provider: bool,
    problem: str = "",
    encrypted: bool = True,
    status: int = 200,
) -> HTMLResponse:
    """The form.

    Args:
        back: the path that the browser goes to afterwards.
        provider: whether a provider can be asked who somebody is.
        problem: why the last try failed.
        encrypted: whether a browser will keep the session.
        status: of the answer.
    """
    hidden = escape(back, quote=True)
    said = "".join(
        f'<p role="alert">{escape(text)}</p>'
        for text in (problem, "" if encrypted else NOT_ENCRYPTED)
        if text
    )
    other = f'<a href="/signin/oidc?next={hidden}">{BY_PROVIDER}</a>' if provider else ""
    return _page(
        f'{said}<form method="post" action="/signin"><input type="hidden" name="next" '
        f'value="{hidden}"><label for="key">{KEY}</label><input id="key" name="key" '
        'type="password" autocomplete="current-password" required autofocus maxlength="200">'
        f"<button>{SIGN_IN}</button></form>{other}",
        status,
    )


def signed_in_page(name: str, csrf: str) -> HTMLResponse:
    """Who is signed in, and the way out."""
    return _page(
        f'<p>{SIGNED_IN_AS} {escape(name)}</p><form method="post" action="/signout"><input '
        f'type="hidden" name="csrf" value="{escape(csrf, quote=True)}"><button>{SIGN_OUT}</button>'
        "</form>",
        200,
    )


def _page(inside: str, status: int) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{TITLE}</title><style>{STYLE}</style></head><body>'
        f"<main><h1>{TITLE}</h1>{inside}</main></body></html>",
        status,
        {
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "same-origin",
            "X-Frame-Options": "DENY",
        },
    )
