"""Takes out of texts what nobody else may read: keys, tokens, signed addresses, names of homes.

What is known to be a secret is taken out wherever it stands; the rest is found by its shape. Every
error, log line and page goes through here, so it imports nothing and stays quick.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

HIDDEN = "***"
LEAST = 6
"""Characters from which a value counts as a secret; shorter ones stand in ordinary words."""
_known: set[str] = set()
_pattern: re.Pattern[str] | None = None
_SECRET_NAMES = re.compile(
    r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING|HEADERS)$"
)
"""Ends of names of environment variables that hold secrets."""

_OWN_SHAPE = "|".join(
    (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        r"\bsk-[A-Za-z0-9_-]{16,}",
        r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{20,}",
        r"\bgithub_pat_[A-Za-z0-9_]{20,}",
        r"\bglpat-[A-Za-z0-9_-]{16,}",
        r"\bhf_[A-Za-z0-9]{16,}",
        r"\br8_[A-Za-z0-9]{16,}",
        r"\bpn[ub]_[A-Za-z0-9]{16,}",
        r"\bsl_[A-Za-z0-9_-]{16,}",
        r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
        r"\bAIza[A-Za-z0-9_-]{30,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}:[A-Za-z0-9]{16,}",
    )
)
_QUERY = (
    r"X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|Signature|sig"
    r"|AWSAccessKeyId|Key-Pair-Id|Policy|token|access_token|refresh_token|id_token|api_?key|key"
    r"|secret|client_secret|password|auth|code|hmac"
)
_NAMED = (
    r"passwords?|passwd|api[_-]?keys?|access[_-]?keys?|secret[_-]?keys?|secret[_-]?access[_-]?key"
    r"|private[_-]?keys?|client[_-]?secret|auth[_-]?string|access[_-]?token|refresh[_-]?token"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(_OWN_SHAPE, re.DOTALL), HIDDEN),
    (re.compile(rf"([?&;](?:{_QUERY})=)[^&\s\"'<>)\]}}]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s:@\"']*:[^/\s@\"']+@", re.IGNORECASE),
        rf"\1{HIDDEN}@",
    ),
    (
        re.compile(r"\b(Bearer|Basic|Digest|Key|Token)\s+[A-Za-z0-9._~+/:=-]{12,}"),
        rf"\1 {HIDDEN}",
    ),
    (
        re.compile(
            rf"\b({_NAMED})(\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!\*\*\*)[^\s\"',;&}}\]\\]{{4,}}",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(
            r"\b((?:[A-Za-z0-9]+[_-])?(?:token|secret)|authorization|cookie)(\\?[\"']?\s*[:=]\s*\\?[\"']?)"
            r"(?=[^\s\"',;&}\]\\]*\d)[^\s\"',;&}\]\\]{12,}",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
)
_HOMES = re.compile(
    r"(?<![\w.])(?:/home/[^/\s:\"'<>|]+|/Users/[^/\s:\"'<>|]+|[A-Za-z]:\\Users\\[^\\\s:\"'<>|]+)"
)


def know(secrets: Iterable[str]) -> None:
    """Take these values out from now on, wherever they stand; a part before or after `:` too.

    What stands before a `:` and is a plain word is the name of an account: it stays.
    """
    global _pattern
    for secret in secrets:
        *before, last = secret.split(":")
        for part in (secret, last, *(name for name in before if not name.isalpha())):
            if len(part) >= LEAST:
                _known.add(part)
    _pattern = None


def know_environment(environment: Mapping[str, str]) -> None:
    """Take out what variables hold whose names say that it is secret."""
    know(value for name, value in environment.items() if _SECRET_NAMES.search(name.upper()))


def redacted(text: str) -> str:
    """The text without secrets, and with `~` for people's home folders."""
    if _known:
        text = _hidden_known(text)
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return _HOMES.sub("~", _without_home(text))


def _hidden_known(text: str) -> str:
    global _pattern
    pattern = _pattern
    if pattern is None:
        longest_first = sorted(_known, key=len, reverse=True)
        pattern = _pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern.sub(HIDDEN, text)


def _without_home(text: str) -> str:
    """That of this process, wherever it lies; not of one that is all of the disk."""
    home = os.environ.get("HOME") or ""
    if len(home) < 3 or home not in text or Path(home) == Path(home).parent:
        return text
    return re.sub(rf"{re.escape(home)}(?=[/\\]|\b)(?![\w.-])", "~", text)
