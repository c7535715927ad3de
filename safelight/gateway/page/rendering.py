"""How the page becomes HTML: templates, words, numbers and times, and what a browser may load."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from safelight.errors import MissingFileError
from safelight.gateway.page.words import WORDS, label, say
from safelight.gateway.signin.caller import caller_of
from safelight.installed import version

STATIC = "/page/static"
"""Where the browser finds style and modules."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing of other hosts, nothing inline. Previews are `data:`, pasted pictures `blob:`."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def shown_page(request: Request, template: str, room: str, **values: object) -> HTMLResponse:
    """A whole page, in its frame.

    Args:
        request: that asks for it.
        template: its name, without the end.
        room: which one is marked in the rail.
        values: what the template shows.
    """
    return HTMLResponse(
        _environment()
        .get_template(f"{template}.html")
        .render(room=room, **_about(request, values)),
        headers=HEADERS,
    )


def shown_part(
    request: Request, template: str, *, status: int = 200, **values: object
) -> HTMLResponse:
    """A part of a page, which takes the place of what was there."""
    return HTMLResponse(
        _environment().get_template(f"parts/{template}.html").render(**_about(request, values)),
        status,
        headers=HEADERS,
    )


def _about(request: Request, values: Mapping[str, object]) -> dict[str, object]:
    caller = caller_of(request.scope)
    signed_in = caller.actor if caller.session else ""
    about = {"csrf": caller.csrf, "signed_in": signed_in, "version": version("safelight")}
    return {**about, **values}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("safelight.gateway.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=say, label=label, static=STATIC)  # pyright: ignore[reportCallIssue, reportArgumentType]
    environment.filters.update(
        ago=ago, exact=exact, seconds=seconds, size=size, thousands=thousands, money=money
    )
    return environment


def static_file(name: str, known_tag: str | None) -> Response:
    """Style, a module or a drawing of the page.

    Args:
        name: below the folder of static files.
        known_tag: header If-None-Match.

    Raises:
        MissingFileError: there is none of this name.
    """
    found = _static().get(name)
    if found is None:
        raise MissingFileError(f"the page has no file {name[:80]!r}", "load the page again")
    content, kind, tag = found
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if known_tag == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def static_names() -> frozenset[str]:
    """Names of all static files."""
    return frozenset(_static())


@cache
def _static() -> dict[str, tuple[bytes, str, str]]:
    """All of them: content, type and tag by name; the words of the modules are made of ours."""
    spoken = {key: text for key, text in WORDS.items() if key.startswith("live.")}
    words = f"export default {json.dumps(spoken, indent=1)};\n".encode()
    told = {"words.js": words}
    waiting = [("", files("safelight.gateway.page").joinpath("static"))]
    while waiting:
        before, folder = waiting.pop()
        for each in folder.iterdir():
            if each.is_dir():
                waiting.append((f"{before}{each.name}/", each))
            elif any(each.name.endswith(end) for end in KINDS):
                told[f"{before}{each.name}"] = each.read_bytes()
    return {
        name: (content, KINDS[name[name.rindex(".") :]], f'"{hashlib.sha256(content).hexdigest()}"')
        for name, content in told.items()
    }


def _when(at: datetime | float | str) -> datetime:
    if isinstance(at, datetime):
        return at
    return datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)


def ago(at: datetime | float | str | None) -> str:
    """A time as people say it: 5 min ago."""
    if at is None:
        return ""
    past = (datetime.now(UTC) - _when(at)).total_seconds()
    if past < 0:
        return say("time.in", span=seconds(-past))
    if past < 5:
        return say("time.now")
    if past > 30 * _DAY:
        return _when(at).date().isoformat()
    return say("time.ago", span=seconds(past, rough=True))


def exact(at: datetime | float | str | None) -> str:
    """The same to the second, with its offset."""
    return "" if at is None else _when(at).isoformat(sep=" ", timespec="seconds")


def seconds(span: float | None, *, rough: bool = False) -> str:
    """A span as people say it: 0.4 s, 12 s, 3 min, 2 h, 4 days."""
    if span is None:
        return ""
    if span < 10 and not rough:
        return f"{span:.1f} s"
    if span < 2 * _MINUTE:
        return f"{span:.0f} s"
    if span < 2 * _HOUR:
        return f"{span / _MINUTE:.0f} min"
    return f"{span / _HOUR:.0f} h" if span < 2 * _DAY else f"{span / _DAY:.0f} days"


def size(count: float | None) -> str:
    """Bytes as people say them."""
    left = float(count or 0)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if left < 1024:
            return f"{left:.0f} {unit}" if left >= 10 or unit == "B" else f"{left:.1f} {unit}"
        left /= 1024
    return f"{left:.1f} TiB"


def thousands(count: int) -> str:
    """12418 as 12,418."""
    return f"{count:,}"


def money(usd: float) -> str:
    """USD, with as many digits as tell something."""
    return say("money.free") if usd == 0 else f"{usd:.2f} USD" if usd >= 0.1 else f"{usd:.4f} USD"
