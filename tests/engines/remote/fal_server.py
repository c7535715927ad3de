"""A small server that speaks the queue of fal."""

import itertools
from typing import Any

from tests.engines.remote.providing import Reply, Served

KEY = "fal-key-id-0123:fal-secret-4567890"
LOCKED = {
    "detail": "User is locked. Reason: Exhausted balance. Top up your balance at "
    "fal.ai/dashboard/billing."
}


class Fal(Served):
    """Every request is a new job: there is no id of the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.locked = False
        self.admin = True
        self.cancelled: list[str] = []
        self.strange_urls = ""
        self.inputs: dict[str, Any] = {}

    def answer(self, method: str, path: str, query: Any, head: dict[str, str], body: Any) -> Reply:
        if head.get("authorization") != f"Key {KEY}":
            return 401, {"detail": f"No user found for key {head.get('authorization')}"}
        if path == "/v1/account/billing":
            if not self.admin:
                return 403, {"detail": "Access denied"}
            left = {"current_balance": self.balance, "currency": "USD"}
            return 200, {"username": "studio", "credits": left}
        if path == "/storage/upload/initiate":
            place = f"{self.url}/media/in-{next(self.numbers)}"
            return 200, {"upload_url": f"{place}?sig=x", "file_url": place}
        parts = path.strip("/").split("/")
        if method == "POST":
            return self._submitted(parts, body)
        known = parts[3]
        if known not in self.accepted:
            return 404, {"detail": "Request not found"}
        if method == "PUT":
            self.cancelled.append(known)
            return 202, {"status": "CANCELLATION_REQUESTED"}
        if parts[-1] == "status":
            if not self.done(known):
                return 202, {"status": "IN_PROGRESS", "logs": []}
            return 200, {"status": "COMPLETED", "metrics": {}}
        if self.error is not None:
            status, told, *more = self.error
            return status, told, (more[0] if more else {})
        if self.result[1].startswith("video"):
            return 200, {"video": {"url": self.kept(known), "content_type": "video/mp4"}}
        image = {"url": self.kept(known), "width": 64, "height": 64, "content_type": "image/png"}
        return 200, {"images": [image], "seed": 1, "has_nsfw_concepts": [False], "prompt": "x"}

    def _submitted(self, parts: list[str], body: Any) -> Reply:
        if self.locked:
            return 403, LOCKED
        known = f"764cabcf-b745-4b3e-ae38-{next(self.numbers):012}"
        self.accepted.append(known)
        self.inputs[known] = body
        base = f"{self.strange_urls or self.url}/{parts[0]}/{parts[1]}/requests/{known}"
        told = {
            "request_id": known,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
            "status": "IN_QUEUE",
            "queue_position": 0,
        }
        return 200, told, {"X-Fal-Request-Id": known}
