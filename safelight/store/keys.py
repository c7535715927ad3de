"""Which names a store takes for its keys."""

import re

from safelight.errors import ForbiddenPathError

LONGEST = 512
"""Characters of a key; file systems and S3 both take this many."""
LONGEST_PART = 200
"""Characters between two slashes; most file systems stop at 255 bytes."""
_PART = re.compile(rf"[A-Za-z0-9_\-][A-Za-z0-9._\-]{{0,{LONGEST_PART - 1}}}")


def checked_key(key: str) -> str:
    """The key itself when it is a plain relative path; every backend asks here first.

    Raises:
        ForbiddenPathError: empty, too long, absolute, or with parts such as `..`, or characters
            other than letters, digits, `.`, `_` and `-`.
    """
    if len(key) <= LONGEST and all(_PART.fullmatch(part) for part in key.split("/")):
        return key
    raise ForbiddenPathError(
        f"key {key[:80]!r} is not a plain relative path",
        f"use letters, digits, '.', '_', '-' and '/', no part starting with '.' or longer than "
        f"{LONGEST_PART} characters",
    )


def checked_prefix(prefix: str) -> str:
    """The prefix itself when a key may start with it; the empty one starts them all.

    Raises:
        ForbiddenPathError: no key can start with it.
    """
    checked_key(prefix if prefix and not prefix.endswith("/") else f"{prefix}x")
    return prefix
