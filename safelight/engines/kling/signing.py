"""Tokens for Kling: signed by the secret key, on the clock of the other side."""

import base64
import hashlib
import hmac
import json
import threading
import time
from email.utils import parsedate_to_datetime

LASTS, BEFORE = 1800, 5
"""Seconds that a token is good for, and that it begins before now."""
MOST_SKEW = 86400.0
"""Seconds; a clock that is farther off is no clock."""


class Clock:
    """What time it is for Kling, as far as its answers have told."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead

    def learn(self, date: str) -> bool:
        """Take the time from the header `Date` of an answer; whether it differs from ours."""
        try:
            ahead = parsedate_to_datetime(date).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return False
        if abs(ahead) > MOST_SKEW or abs(ahead - self._ahead) < 1.0:
            return False
        with self._lock:
            self._ahead = ahead
        return True


def token(access_key: str, secret_key: str, now: float) -> str:
    """A token for one question: a JSON Web Token, HS256.

    Args:
        access_key: tells who asks.
        secret_key: signs; it is not in the token.
        now: seconds since 1970, for whoever reads it.

    Source:
        RFC 7515, section 3.1, and RFC 7519.
    """
    head = _packed({"alg": "HS256", "typ": "JWT"})
    claims = _packed({"iss": access_key, "exp": int(now) + LASTS, "nbf": int(now) - BEFORE})
    signed = f"{head}.{claims}"
    signature = hmac.new(secret_key.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_text(signature)}"


def _packed(fields: dict[str, object]) -> str:
    return _text(json.dumps(fields, separators=(",", ":")).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
