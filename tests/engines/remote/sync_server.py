"""A small server that speaks the generations of Sync Labs."""

import itertools
import json
from typing import Any

from tests.engines.remote.providing import Reply, Served

KEY = "sync-key-sk-0123456789abcdef"


class Sync(Served):
    """The same key and the same body are the same generation."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.by_key: dict[str, tuple[str, str]] = {}
        self.seconds = 1.0
        self.cost: float | None = 0.04

    def answer(self, method: str, path: str, query: Any, head: dict[str, str], body: Any) -> Reply:
        if head.get("x-api-key") != KEY:
            return 401, _told(401, f"Unauthorized: {head.get('x-api-key')}")
        if path == "/v2/models":
            return 200, [{"id": "lipsync-2"}]
        if path == "/v2/assets/upload":
            place = f"{self.url}/media/asset-{next(self.numbers)}"
            return 201, {"uploadUrl": f"{place}?sig=x", "url": place, "expiresIn": 3600}
        if path == "/v2/assets":
            there = body["url"].removeprefix(self.url) in self.files
            return (
                (201, {"id": f"asset-{next(self.numbers)}"}) if there else (422, _told(422, "no"))
            )
        if path == "/v2/analyze/cost":
            if self.cost is None:
                return 400, _told(400, "no estimate")
            cost = {"estimatedFrameCount": 25, "estimatedGenerationCost": self.cost}
            return 201, [cost]
        if path == "/v2/generate":
            return self._submitted(head.get("idempotency-key", ""), body)
        known = path.rpartition("/")[2]
        if not self.done(known):
            return 200, {"id": known, "status": "PROCESSING"}
        if self.error is not None:
            return 200, {"id": known, "status": "FAILED", **self.error}
        made = {"outputUrl": self.kept(known), "outputDuration": self.seconds}
        return 200, {"id": known, "status": "COMPLETED", **made}

    def _submitted(self, key: str, body: Any) -> Reply:
        said = json.dumps(body, sort_keys=True)
        if key in self.by_key:
            known, before = self.by_key[key]
            if before != said:
                return 422, _told(422, "another body", "IDEMPOTENCY_KEY_REUSED")
            return 201, {"id": known, "status": "PENDING"}
        known = f"generation-{next(self.numbers)}"
        self.by_key[key] = (known, said)
        self.accepted.append(key)
        return 201, {"id": known, "status": "PENDING"}


def _told(status: int, message: str, code: str = "") -> dict[str, Any]:
    return {"statusCode": status, "message": message, "errorCode": code or None, "error": "error"}
