"""What schemathesis has to be told: parts of uploads are bytes, of a type of their protocol."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def as_bytes(context: Any, value: Any) -> dict[str, Any]:
    """Bytes as they are."""
    del context
    data = value if isinstance(value, bytes) else str(value).encode()
    return {"data": data}
