"""Uploads in parts go on where they broke off, also after a kill; nothing wrong is kept."""

import base64
import hashlib
import io
import os
import time
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image
from starlette.requests import ClientDisconnect

from safelight.gateway import uploading
from safelight.gateway.problems import UploadBusyError
from safelight.gateway.uploading import Uploads
from tests.gateway.conftest import Alone

TUS = {"Tus-Resumable": "1.0.0"}
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}
PLACE = "/api/uploads/resumable"


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def checksum(data: bytes, name: str = "sha256") -> dict[str, str]:
    digest = base64.b64encode(hashlib.new(name, data).digest()).decode()
    return {"Upload-Checksum": f"{name} {digest}"}


def begin(alone: Alone, length: int, **metadata: str) -> str:
    said = ",".join(f"{n} {base64.b64encode(v.encode()).decode()}" for n, v in metadata.items())
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": said}
    made = alone.ask("POST", PLACE, headers=headers)
    assert made.status_code == 201, made.text
    assert made.headers["upload-offset"] == "0"
    return made.headers["location"]


def add(alone: Alone, place: str, offset: int, data: bytes, **more: str):
    headers = {**PART, "Upload-Offset": str(offset), **more}
    return alone.ask("PATCH", place, headers=headers, content=data)


def offset_of(alone: Alone, place: str) -> int:
    return int(alone.ask("HEAD", place, headers=TUS).headers["upload-offset"])


def test_a_file_in_parts_is_the_file_at_once(alone: Alone):
    data = png()
    place = begin(alone, len(data), filename="a.png", sha256=hashlib.sha256(data).hexdigest())
    at = 0
    for size, name in ((1000, "sha256"), (2000, "sha1"), (len(data), "sha256")):
        part = data[at : at + size]
        assert alone.ask("GET", place).status_code == 409
        answer = add(alone, place, at, part, **checksum(part, name))
        assert answer.status_code == 204, answer.text
        at += len(part)
        assert answer.headers["upload-offset"] == str(at)
    whole = alone.ask("POST", "/api/uploads", content=data, headers={"Content-Type": "image/png"})
    assert alone.ask("GET", place).json() == whole.json()
    assert answer.headers["safelight-uri"] == whole.json()["uri"]
    assert offset_of(alone, place) == len(data)


def test_what_is_spoken_is_said(alone: Alone):
    said = alone.ask("OPTIONS", PLACE)
    assert said.status_code == 204
    assert said.headers["tus-version"] == "1.0.0"
    assert said.headers["tus-extension"] == "creation,checksum,expiration,termination"
    assert said.headers["tus-checksum-algorithm"] == "sha256,sha1"
    assert alone.ask("POST", PLACE, headers={"Upload-Length": "5"}).status_code == 412


def test_a_damaged_part_is_not_kept(alone: Alone):
    data = png(1)
    place = begin(alone, len(data))
    assert add(alone, place, 0, data[:500]).status_code == 204
    wrong = add(alone, place, 500, data[500:900], **checksum(b"something else"))
    assert (wrong.status_code, wrong.json()["error_code"]) == (460, "CHECKSUM_MISMATCH")
    assert offset_of(alone, place) == 500
    assert add(alone, place, 400, data[400:]).status_code == 409
    assert add(alone, place, 500, data[500:] + b"x").status_code == 400
    # what came before the upload was too long counts, as where a connection breaks
    at = offset_of(alone, place)
    assert add(alone, place, at, data[at:]).status_code == 204
    assert alone.ask("GET", place).json()["id"] == hashlib.sha256(data).hexdigest()


def test_only_media_are_kept_and_only_those_that_are_meant(alone: Alone):
    text = b"no picture at all" * 50
    place = begin(alone, len(text))
    refused = add(alone, place, 0, text)
    assert refused.status_code == 400
    assert refused.json()["error_code"] == "INVALID_FIELD_VALUE"
    assert alone.ask("GET", place).status_code == 404
    data = png(2)
    place = begin(alone, len(data), sha256="0" * 64)
    assert add(alone, place, 0, data).json()["error_code"] == "CHECKSUM_MISMATCH"


def test_an_upload_is_ended(alone: Alone):
    place = begin(alone, 100)
    assert alone.ask("DELETE", place, headers=TUS).status_code == 204
    assert alone.ask("HEAD", place, headers=TUS).status_code == 404
    assert alone.ask("DELETE", place, headers=TUS).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "0"}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": str(2**60)}, 413),
        ({}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "name !!!"}, 400),
    ],
)
def test_uploads_that_make_no_sense_are_refused(alone: Alone, headers: dict, status: int):
    answer = alone.ask("POST", PLACE, headers={**TUS, **headers})
    assert answer.status_code == status
    assert answer.json()["ok"] is False


def test_ids_lead_nowhere_else(alone: Alone):
    for hostile in ("..%2f..%2fetc", "0" * 31, "A" * 32, "0" * 32):
        assert alone.ask("GET", f"{PLACE}/{hostile}").status_code in (400, 404)
    wrong = begin(alone, 5)
    for value in ("md5 AAAA", "sha256 AAAA", "sha256", "x" * 50):
        assert add(alone, wrong, 0, b"12345", **{"Upload-Checksum": value}).status_code == 400
    plain = {**TUS, "Upload-Offset": "0", "Content-Type": "image/png"}
    assert alone.ask("PATCH", wrong, headers=plain, content=b"12345").status_code == 415


@pytest.mark.usefixtures("volume")
def test_after_a_kill_an_upload_goes_on_from_what_is_known_to_be_right():
    data = png(3)

    async def two_gateways() -> str:
        first = Uploads()
        made = first.create(len(data), {})
        await first.add(made.id, 0, parts(data[:700]), None)
        folder = first._root / made.id
        with (folder / "bytes").open("ab") as file:
            file.write(b"bytes of a part whose checksum nobody had compared yet")
        second = Uploads()
        assert second.find(made.id)[1] == 700
        found, _ = await second.add(made.id, 700, parts(data[700:]), None)
        assert found.stored is not None
        return found.stored.id

    assert anyio.run(two_gateways) == hashlib.sha256(data).hexdigest()


@pytest.mark.usefixtures("volume")
def test_what_came_before_a_connection_broke_counts():
    data = png(4)

    async def broken():
        yield data[:600]
        raise ClientDisconnect

    async def goes_on() -> None:
        uploads = Uploads()
        made = uploads.create(len(data), {})
        with pytest.raises(ClientDisconnect):
            await uploads.add(made.id, 0, broken(), None)
        assert uploads.find(made.id)[1] == 600
        with pytest.raises(ClientDisconnect):
            await uploads.add(made.id, 600, failing(data), ("sha256", b""))
        assert uploads.find(made.id)[1] == 600

    anyio.run(goes_on)


async def failing(data: bytes):
    yield data[600:800]
    raise ClientDisconnect


@pytest.mark.usefixtures("volume")
def test_two_parts_at_once_are_refused():
    async def both() -> None:
        uploads, came = Uploads(), anyio.Event()
        made = uploads.create(10, {})

        async def slow():
            yield b"12345"
            came.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(uploads.add, made.id, 0, slow(), None)
            await came.wait()
            with pytest.raises(UploadBusyError):
                await uploads.add(made.id, 0, parts(b"1"), None)
            with pytest.raises(UploadBusyError):
                uploads.end(made.id)
            group.cancel_scope.cancel()
        assert uploads.find(made.id)[1] == 5

    anyio.run(both)


async def parts(data: bytes):
    yield data


def test_what_nobody_goes_on_with_is_removed(volume: Path, monkeypatch: pytest.MonkeyPatch):
    uploads = Uploads()
    old, new = (uploads.create(5, {}) for _ in range(2))
    for file in (uploads._root / old.id).iterdir():
        os.utime(file, (time.time() - 90_000,) * 2)
    uploads.sweep()
    assert not (uploads._root / old.id).exists()
    assert uploads.find(new.id)[1] == 0
    monkeypatch.setattr(uploading, "MOST_UPLOADS", 1)
    with pytest.raises(Exception, match="1 uploads are unfinished"):
        uploads.create(5, {})
