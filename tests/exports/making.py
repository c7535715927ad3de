"""Results for tests of names: small real files in the store, with the facts that runs leave."""

from collections.abc import Mapping
from datetime import UTC, datetime

from safelight.exports.facts import Result
from safelight.exports.template import Value
from safelight.store.store import current_store

MOMENT = datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC)


def result(content: bytes | str, media_type: str = "image/png", **facts: Value) -> Result:
    """A stored file with these facts; its bytes are only bytes."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    ref = current_store().put(data, media_type)
    known: Mapping[str, Value] = {"id": ref.sha256, "date": MOMENT, "time": MOMENT, **facts}
    return Result(ref, known, MOMENT)
