"""A small server that speaks the tasks of Runware."""

import re
from typing import Any

from tests.engines.remote.providing import Reply, Served

KEY = "runware-key-abcdef012345"
COST = 0.0013
V4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Runware(Served):
    """Tasks have the caller's ids, each taken once."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Any] = {}
        self.stored: dict[str, str] = {}
        self.cost: float | None = COST

    def answer(self, method: str, path: str, query: Any, head: dict[str, str], body: Any) -> Reply:
        if head.get("authorization") != f"Bearer {KEY}":
            return 401, _error("invalidApiKey", f"Invalid API key {head.get('authorization')}")
        (task,) = body
        kind, known = task["taskType"], task["taskUUID"]
        if not V4.fullmatch(known):
            return 400, _error("invalidTaskUUID", "taskUUID is no UUID v4", known, "taskUUID")
        if kind == "mediaStorage":
            self.stored[known] = task["media"]
            return 200, {"data": [{"taskType": kind, "taskUUID": known, "mediaUUID": known}]}
        if kind == "accountManagement":
            return 200, {
                "data": [{"taskType": kind, "taskUUID": known, "balance": {"total": self.balance}}]
            }
        if kind in ("getResponse", "getTaskDetails"):
            return self._told(kind, known)
        if known in self.tasks:
            return 400, _error("duplicateTaskUUID", "taskUUID is taken", known, "taskUUID")
        self.tasks[known] = task
        self.accepted.append(known)
        return 200, {"data": [{"taskType": kind, "taskUUID": known}]}

    def _told(self, kind: str, known: str) -> Reply:
        if known not in self.tasks:
            return 200, _error("taskNotFound", "there is no such task", known)
        if kind == "getTaskDetails":
            told = {"taskType": kind, "taskUUID": known, "request": [self.tasks[known]]}
            return 200, {"data": [told]}
        told = {"taskType": self.tasks[known]["taskType"], "taskUUID": known}
        if not self.done(known):
            return 200, {"data": [{**told, "status": "processing", "progress": 0.5}]}
        if self.error is not None:
            return 200, {"errors": [{**self.error, "taskUUID": known}]}
        cost = {} if self.cost is None else {"cost": self.cost}
        named = "video" if self.result[1].startswith("video") else "image"
        where = {f"{named}UUID": known, f"{named}URL": self.kept(known)}
        made = {"status": "success", **where, **cost}
        return 200, {"data": [{**told, **made}]}


def _error(code: str, message: str, task: str = "", parameter: str = "") -> dict[str, Any]:
    told = {"code": code, "message": message, "taskUUID": task, "parameter": parameter}
    return {"errors": [{name: value for name, value in told.items() if value}]}
