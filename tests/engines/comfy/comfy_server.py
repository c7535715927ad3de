"""A small server that speaks ComfyUI's protocol, with faults; it stands for somebody else's system.

It answers with what a real one answered (`recorded.json`): description of nodes, refusals, the
messages of a run and its entry in the history.
"""

import base64
import hashlib
import io
import json
import mimetypes
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safelight.settings import settings
from tests.engines.comfy.validating import refusal_of
from tests.listening import listening

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
GRAPH: dict[str, Any] = RECORDED["graph"]
CLOSE = 8
"""Kind of frame that ends a websocket."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Comfy:
    """What the server holds and how it misbehaves."""

    def __init__(self, version: str = "0.3.64") -> None:
        self.version = version
        self.nodes: dict[str, Any] = dict(RECORDED["object_info"])
        """What it says of its types of node; custom ones may be added."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of each question."""
        self.submitted: list[str] = []
        """Id of each prompt that was put into the queue, in order."""
        self.interrupted: list[str] = []
        self.deleted: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []
        self.faults: list[Callable[[str, str], str | None]] = []
        """Each is asked with method and path, and names what goes wrong there."""
        self.wanted: dict[str, str] = {}
        """Headers without which it answers 401."""
        self.hold = threading.Event()
        """Prompts run only while it is set."""
        self.hold.set()
        self.paused_at = ""
        """Node before which a prompt waits until `hold` is set, which its start clears."""
        self.error: dict[str, Any] | None = None
        self.picture = _picture
        self.clip = b""
        """What SaveVideo saves."""
        self.preview = b""
        """Sent as a picture of what is made, before the first step."""
        self.pending: list[list[Any]] = []
        self.running: list[list[Any]] = []
        self.history: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.sockets: dict[str, socket.socket] = {}
        self.lock = threading.RLock()
        self.websocket = True
        self.socket_opens = 0
        self.ended = threading.Event()
        self._interrupt = threading.Event()

    def fault(self, method: str, path: str, what: str, times: int = 1) -> None:
        """Let so many questions go wrong."""
        left = [times]

        def wrong(asked: str, where: str) -> str | None:
            if asked == method and where.startswith(path) and left[0] > 0:
                left[0] -= 1
                return what
            return None

        self.faults.append(wrong)

    def end(self) -> None:
        self.ended.set()
        self.hold.set()

    def forget(self) -> None:
        """As a restart does."""
        self.drop_sockets()
        with self.lock:
            self.pending.clear()
            self.running.clear()
            self.history.clear()

    def drop_sockets(self) -> None:
        with self.lock:
            for each in self.sockets.values():
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self.sockets.clear()

    def send(self, client: str, kind: str, data: dict[str, Any]) -> None:
        with self.lock:
            there = self.sockets.get(client)
        if there is not None:
            with suppress(OSError):
                there.sendall(_frame(json.dumps({"type": kind, "data": data}).encode()))

    def send_bytes(self, client: str, told: bytes) -> None:
        with self.lock:
            there = self.sockets.get(client)
        if there is not None:
            with suppress(OSError):
                there.sendall(_frame(told, 0x82))

    def work(self) -> None:
        """Run what is in the queue, as the recorded server ran it."""
        while not self.ended.is_set():
            with self.lock:
                item = self.pending.pop(0) if self.pending and self.hold.is_set() else None
                if item is not None:
                    self.running.append(item)
            if item is None:
                time.sleep(0.005)
                continue
            self._interrupt.clear()
            entry = self._run(item)
            with self.lock:
                if item in self.running:  # not forgotten
                    self.running.remove(item)
                    self.history[item[1]] = entry
            self.send(item[3]["client_id"], "executing", {"node": None, "prompt_id": item[1]})

    def _run(self, item: list[Any]) -> dict[str, Any]:
        _, prompt_id, prompt, extra, _ = item
        client = extra["client_id"]
        messages: list[list[Any]] = []
        if self.paused_at:  # from here on, so that a client that is quick can let it go on already
            self.hold.clear()
        for kind, recorded in RECORDED["messages"]:
            data = {**recorded, "prompt_id": prompt_id}
            if kind == "executing" and data.get("node") is None:
                continue
            if kind == "executing" and data["node"] == self.paused_at:
                while not self.hold.wait(0.01) and not self._interrupt.is_set():
                    pass
            if self._interrupt.is_set():
                data = {"prompt_id": prompt_id, "node_id": data.get("node"), "executed": []}
                messages.append(["execution_interrupted", data])
                self.send(client, "execution_interrupted", data)
                return _entry(item, {}, "error", messages)
            if self.error is not None and kind == "executing" and data["node"] == "3":
                told = {**self.error, "prompt_id": prompt_id}
                messages.append(["execution_error", told])
                self.send(client, "execution_error", told)
                return _entry(item, {}, "error", messages)
            if kind == "executing" and data["node"] == "3" and self.preview:
                self.send_bytes(client, struct.pack(">II", 1, 1) + self.preview)
            if kind == "execution_success":
                messages.append([kind, data])
            self.send(client, kind, data)
        made = {}
        for node, described in prompt.items():
            if described["class_type"] == "SaveImage":
                name = f"{described['inputs']['filename_prefix']}_{len(self.files):05}_.png"
                self.files[name] = self.picture(prompt)
                made[node] = {"images": [{"filename": name, "subfolder": "", "type": "output"}]}
            elif described["class_type"] == "SaveVideo":
                self.files["clip_00001_.mp4"] = self.clip
                saved = {"filename": "clip_00001_.mp4", "subfolder": "video", "type": "output"}
                made[node] = {"images": [saved], "animated": [True]}
        return _entry(item, made, "success", messages)

    def refusal(self, prompt: dict[str, Any]) -> dict[str, Any] | None:
        """What the recorded server said to such prompts."""
        if any(node["class_type"] not in self.nodes for node in prompt.values()):
            return RECORDED["unknown_node"]
        sampler = next((n for n in prompt.values() if n["class_type"] == "KSampler"), None)
        if sampler is not None and sampler["inputs"]["steps"] == 0:
            return RECORDED["too_small"]
        loaders = [n for n in prompt.values() if n["class_type"] == "CheckpointLoaderSimple"]
        loader = loaders[0] if loaders else None
        if loader is not None and loader["inputs"]["ckpt_name"] not in RECORDED["models"]:
            return RECORDED["missing_model"]
        return refusal_of(prompt, self.nodes)


@contextmanager
def comfy_up(comfy: Comfy) -> Iterator[str]:
    """The address of a server that holds this."""
    worker = threading.Thread(target=comfy.work, daemon=True)
    worker.start()
    handler = type("Bound", (Handler,), {"comfy": comfy})
    with listening(handler) as url:
        try:
            yield url
        finally:
            comfy.end()
            comfy.drop_sockets()
            worker.join(10)


@contextmanager
def named_comfy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    """A server that the settings name."""
    held = Comfy()
    with comfy_up(held) as url:
        monkeypatch.setenv("SAFELIGHT_COMFY_URL", url)
        settings.cache_clear()
        yield held


def serve(comfy: Comfy, port: int) -> None:
    """Serve this on a port until the process ends."""
    threading.Thread(target=comfy.work, daemon=True).start()
    handler = type("Bound", (Handler,), {"comfy": comfy})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


class Handler(BaseHTTPRequestHandler):
    """Routes as ComfyUI has them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    comfy: Comfy

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_POST(self) -> None:
        self._answer("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, method: str, body: bytes) -> None:
        comfy, parts = self.comfy, urlsplit(self.path)
        path = unquote(parts.path)
        comfy.asked.append((method, path))
        comfy.headers.append(dict(self.headers.items()))
        wrong = next(filter(None, (fault(method, path) for fault in comfy.faults)), None)
        if any(self.headers.get(name) != value for name, value in comfy.wanted.items()):
            return self._say(401, {})
        if wrong in ("500", "502", "302"):
            return self._say(int(wrong), {}, {"Location": "http://127.0.0.1:9/login"})
        if wrong == "silence":
            self.comfy.ended.wait(30)
            return self._cut()
        if wrong == "cut before":
            return self._cut()
        if path == "/ws":
            return self._websocket(parse_qs(parts.query)["clientId"][0])
        answered = self._route(method, path, parse_qs(parts.query), body)
        if wrong == "cut after":  # it was done, and nobody is told
            return self._cut()
        return self._send(*answered, wrong)

    def _route(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, bytes, str]:
        comfy = self.comfy
        if path == "/system_stats":
            stats = RECORDED["system_stats"]
            return _json({**stats, "system": {**stats["system"], "comfyui_version": comfy.version}})
        if path.startswith("/object_info/"):
            name = path.removeprefix("/object_info/")
            return _json({name: comfy.nodes[name]} if name in comfy.nodes else {})
        if path == "/object_info":
            return _json(comfy.nodes)
        if path.startswith("/history/"):
            name = path.removeprefix("/history/")
            with comfy.lock:
                return _json({name: comfy.history[name]} if name in comfy.history else {})
        if (method, path) == ("GET", "/queue"):
            with comfy.lock:
                return _json({"queue_running": comfy.running, "queue_pending": comfy.pending})
        if path == "/view":
            name = query["filename"][0]
            data, kind = comfy.files.get(name), mimetypes.guess_type(name)[0] or "image/png"
            return (404, b"", "text/plain") if data is None else (200, data, kind)
        if path == "/upload/image":
            return self._upload(body)
        return self._act(path, json.loads(body or b"{}"))

    def _act(self, path: str, told: dict[str, Any]) -> tuple[int, bytes, str]:
        comfy = self.comfy
        if path == "/prompt":
            refused = comfy.refusal(told["prompt"])
            if refused is not None:
                return _json(refused, 400)
            assert UUID.fullmatch(told["prompt_id"])
            with comfy.lock:
                comfy.submitted.append(told["prompt_id"])
                number = len(comfy.submitted)
                extra = {"client_id": told["client_id"]}
                comfy.pending.append([number, told["prompt_id"], told["prompt"], extra, ["9"]])
            return _json({"prompt_id": told["prompt_id"], "number": number, "node_errors": {}})
        if path == "/queue":
            with comfy.lock:
                comfy.deleted += told["delete"]
                comfy.pending = [each for each in comfy.pending if each[1] not in told["delete"]]
            return 200, b"", "application/octet-stream"
        if path == "/free":
            sys.stdout.write(f"asked to free {sorted(told.items())}\n")
            sys.stdout.flush()
            return 200, b"", "application/octet-stream"
        if path == "/interrupt":
            self._interrupt(told.get("prompt_id"))
            return 200, b"", "application/octet-stream"
        cancelled = re.fullmatch(r"/api/jobs/(.+)/cancel", path)
        if cancelled and tuple(map(int, comfy.version.split("."))) >= (0, 26, 0):
            with comfy.lock:
                waits = [each for each in comfy.pending if each[1] == cancelled[1]]
                comfy.deleted += [each[1] for each in waits]
                comfy.pending = [each for each in comfy.pending if each not in waits]
            return _json({"cancelled": bool(waits) or self._interrupt(cancelled[1])})
        return 404, b"404: Not Found", "text/plain"

    def _interrupt(self, prompt_id: str | None) -> bool:
        comfy = self.comfy
        with comfy.lock:
            hit = [each[1] for each in comfy.running if prompt_id in (None, each[1])]
        comfy.interrupted += hit
        if hit:
            comfy._interrupt.set()
        return bool(hit)

    def _upload(self, body: bytes) -> tuple[int, bytes, str]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields: dict[str, Message] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
            fields[part.get_param("name", header="content-disposition")] = part
        name = fields["image"].get_filename()
        subfolder = fields["subfolder"].get_content().strip()
        self.comfy.uploads[f"{subfolder}/{name}"] = fields["image"].get_payload(decode=True)
        return _json({"name": name, "subfolder": subfolder, "type": "input"})

    def _say(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, status: int, body: bytes, kind: str, wrong: str | None) -> None:
        if wrong == "type":
            kind = "text/html"
        endless = wrong == "endless"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(2**40 if endless else len(body)))
        self.end_headers()
        if wrong == "half":
            self.wfile.write(body[: len(body) // 2])
            return self._cut()
        while endless:
            try:
                self.wfile.write(bytes(2**20))
            except OSError:
                return self._cut()
        self.wfile.write(body)
        return None

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)

    def _websocket(self, client: str) -> None:
        comfy = self.comfy
        self.close_connection = True
        if not comfy.websocket:
            return self._say(403, {})
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        with comfy.lock:  # a client that reads this answer is one that messages reach
            self.end_headers()
            comfy.socket_opens += 1
            comfy.sockets[client] = self.connection
        comfy.send(client, "status", {"status": {"exec_info": {"queue_remaining": 0}}})
        with suppress(OSError):
            while (told := self.connection.recv(4096)) and told[0] & 15 != CLOSE:
                pass
            self.connection.sendall(bytes([0x80 | CLOSE, 0]))
        return None


def _entry(
    item: list[Any], outputs: dict[str, Any], status: str, messages: list[list[Any]]
) -> dict[str, Any]:
    said = {"status_str": status, "completed": status == "success", "messages": messages}
    return {"prompt": item, "outputs": outputs, "status": said, "meta": {}}


def _json(answer: object, status: int = 200) -> tuple[int, bytes, str]:
    return status, json.dumps(answer).encode(), "application/json"


def _frame(text: bytes, kind: int = 0x81) -> bytes:
    size = len(text)
    head = bytes([kind, size]) if size < 126 else bytes([kind, 126]) + struct.pack(">H", size)
    return head + text


def _picture(prompt: dict[str, Any]) -> bytes:
    """A PNG that depends on the seed, with the texts that ComfyUI writes."""
    samplers = [each["inputs"] for each in prompt.values() if each["class_type"] == "KSampler"]
    seed = samplers[0]["seed"] if samplers else 0
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8)
    texts = PngInfo()
    texts.add_text("prompt", json.dumps(prompt))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=texts, compress_level=4)
    return file.getvalue()
