"""A small server that speaks the tasks of Kling, on a clock of its own."""

import base64
import hashlib
import hmac
import itertools
import json
import time
from email.utils import formatdate
from typing import Any

from tests.engines.remote.providing import Reply, Served

ACCESS, SECRET = "kling-access-0123456789", "kling-secret-9876543210"


class Kling(Served):
    """Tasks may have the caller's ids, each taken once."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        """Seconds that its clock is ahead of ours."""
        self.numbers = itertools.count(1)
        self.tasks: dict[str, Any] = {}
        self.by_ours: dict[str, str] = {}
        self.units: str | None = "1.5"
        self.packs = True
        self.faces = 1

    def answer(self, method: str, path: str, query: Any, head: dict[str, str], body: Any) -> Reply:
        dated = {"Date": formatdate(time.time() + self.ahead, usegmt=True)}
        refused = self._refused(head.get("authorization", ""))
        if refused:
            return 401, _told(refused, "Authorization is not valid"), dated
        if path == "/account/costs":
            pack = {"resource_pack_name": "Video", "remaining_quantity": self.balance}
            packs = [{**pack, "status": "online"}] if self.packs else []
            return 200, _told(0, "SUCCEED", {"code": 0, "resource_pack_subscribe_infos": packs})
        if path.endswith("/identify-face"):
            self.accepted.append(f"face-{next(self.numbers)}")
            face = {"face_image": "", "start_time": 0, "end_time": 900}
            faces = [{"face_id": str(at), **face} for at in range(self.faces)]
            return 200, _told(0, "SUCCEED", {"session_id": "s-1", "face_data": faces})
        if method == "POST":
            return self._submitted(body)
        known = path.rpartition("/")[2]
        known = self.by_ours.get(known, known)
        if known not in self.tasks:
            return 404, _told(1203, "Resource is not found")
        return 200, _told(0, "SUCCEED", self._task(known))

    def _submitted(self, body: Any) -> Reply:
        ours = body.get("external_task_id")
        if ours in self.by_ours:
            return 400, _told(1201, "external_task_id is taken")
        known = f"task-{next(self.numbers)}"
        self.tasks[known] = body
        if ours:
            self.by_ours[ours] = known
        self.accepted.append(ours or known)
        return 200, _told(0, "SUCCEED", {"task_id": known, "task_status": "submitted"})

    def _task(self, known: str) -> dict[str, Any]:
        told = {"task_id": known, "task_status": "processing"}
        if not self.done(known):
            return told
        if self.error is not None:
            return {**told, "task_status": "failed", **self.error}
        units = {} if self.units is None else {"final_unit_deduction": self.units}
        video = {"id": "v", "url": self.kept(known), "duration": "5"}
        return {**told, "task_status": "succeed", "task_result": {"videos": [video]}, **units}

    def _refused(self, given: str) -> int:
        """The code with which a token is refused; 0 where it is good."""
        if not given.startswith("Bearer "):
            return 1001
        head, claims, signature = given.removeprefix("Bearer ").split(".")
        signed = hmac.new(SECRET.encode(), f"{head}.{claims}".encode(), hashlib.sha256).digest()
        if base64.urlsafe_b64encode(signed).rstrip(b"=").decode() != signature:
            return 1002
        told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        now = time.time() + self.ahead
        if told["iss"] != ACCESS or told["exp"] - told["nbf"] > 1900:
            return 1000
        if now < told["nbf"]:
            return 1003
        return 1004 if now >= told["exp"] else 0


def _told(code: int, message: str, data: Any = None) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "r-1", "data": data}
