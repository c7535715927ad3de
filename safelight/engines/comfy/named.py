"""The ComfyUI that the settings name, or the one that is started here by what they say."""

import re
from urllib.parse import urlsplit

from pydantic import SecretStr, TypeAdapter, ValidationError

from safelight.engines.comfy.launching import command
from safelight.engines.comfy.managed import managed
from safelight.engines.comfy.records import standing
from safelight.engines.comfy.server import Server
from safelight.errors import DependencyMissingError, InvalidFieldValueError
from safelight.settings import settings

_HEADERS = TypeAdapter(dict[str, str])
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def require_named() -> None:
    """Refuse to go on where there can be no server; nothing is asked or started.

    Raises:
        DependencyMissingError: the settings name neither a server nor a checkout, or none is there.
        InvalidFieldValueError: address or headers are not as they should be.
    """
    known = settings()
    if known.comfy_url or known.comfy_dir is None:
        named_server().close()
    else:
        command(0, "")


def named_server() -> Server:
    """The server that the settings name; one that is started here is started, and waited for.

    Raises:
        DependencyMissingError: they name none, or there is no such checkout.
        InvalidFieldValueError: address or headers are not as they should be.
        EngineOfflineError: the one that is to be started does not start.
    """
    known = settings()
    if not known.comfy_url and known.comfy_dir is not None:
        by_hand = standing()
        url = managed().require() if by_hand is None else by_hand.url
        return Server(
            url,
            {},
            answer_seconds=known.comfy_answer_seconds,
            patience_seconds=known.comfy_patience_seconds,
        )
    if not known.comfy_url:
        raise DependencyMissingError(
            "no ComfyUI is named",
            "set SAFELIGHT_COMFY_URL, such as http://127.0.0.1:8188, or SAFELIGHT_COMFY_DIR to a "
            "checkout that is started here",
        )
    try:
        parts = urlsplit(known.comfy_url)
    except ValueError:
        parts = urlsplit("")
    more = parts.query or parts.fragment or "@" in known.comfy_url
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise InvalidFieldValueError(  # it may hold a password, so nobody is shown it
            "SAFELIGHT_COMFY_URL is no plain address, expected http:// or https:// and a host",
            "correct it; what a proxy wants to know goes into SAFELIGHT_COMFY_HEADERS",
        )
    return Server(
        known.comfy_url.rstrip("/"),
        _headers(known.comfy_headers),
        answer_seconds=known.comfy_answer_seconds,
        patience_seconds=known.comfy_patience_seconds,
    )


def _headers(given: SecretStr | None) -> dict[str, str]:
    if given is None or not given.get_secret_value().strip():
        return {}
    try:
        headers = _HEADERS.validate_json(given.get_secret_value())
    except ValidationError:
        headers = None  # what was raised holds the secret
    good = headers is not None and all(
        _HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()
        for name, value in headers.items()
    )
    if headers is None or not good:
        raise InvalidFieldValueError(
            "SAFELIGHT_COMFY_HEADERS is no JSON object of header names and texts",
            'write it like {"Authorization": "Bearer KEY"}',
        )
    return headers
