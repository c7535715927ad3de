"""A store full of pictures, and a gateway over it that needs no Prefect server."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.gallery.index import gallery
from safelight.gateway.app import create_app
from safelight.loopback import free_port
from tests.browsing import browser  # noqa: F401


def fill(volume: Path, count: int, alike: int = 1) -> None:
    """The files and manifests of so many runs, as a store of a folder has them.

    So many of them in a row have the same prompt.
    """
    manifests = volume / "outputs" / "manifests"
    manifests.mkdir(parents=True)
    for number in range(count):
        out = io.BytesIO()
        colour = (number % 256, number // 256 * 6 % 256, 120)
        Image.new("RGB", (96, 96 + number % 3 * 32), colour).save(out, "PNG")
        digest = sha256(out.getvalue()).hexdigest()
        key = f"outputs/{digest[:2]}/{digest}.png"
        (volume / key).parent.mkdir(exist_ok=True)
        (volume / key).write_bytes(out.getvalue())
        ref = {
            "uri": f"store:{key}", "sha256": digest, "media_type": "image/png",
            "bytes": len(out.getvalue()), "width": 96, "height": 96 + number % 3 * 32,
        }  # fmt: skip
        at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
        run, said = str(uuid4()), f"picture {number // alike}"
        engine = {"engine_id": "diffusers", "version": "1", "weights": [], "device_class": "cpu"}
        stage = {
            "name": "generate", "stage_type": "generate", "status": "done", "results": [ref],
            "parameters": {"prompt": said}, "engine": engine, "seconds": 1.0,
        }  # fmt: skip
        manifest = {
            "flow": "generate", "flow_run_id": run, "versions": {}, "device_class": "cpu",
            "parameters": {"prompt": said, "seed": number}, "stages": [stage],
            "results": [ref], "device_name": "cpu", "started": at.isoformat(),
            "ended": at.isoformat(), "success": True,
        }  # fmt: skip
        (manifests / f"{run}.json").write_text(json.dumps(manifest))


@pytest.fixture
def served(volume: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A gateway over a full store; the gallery needs no Prefect server."""
    count, alike = request.param if isinstance(request.param, tuple) else (request.param, 1)
    fill(volume, count, alike)
    begun = time.monotonic()
    assert gallery().refresh() == count
    print(f"index filled in {time.monotonic() - begun:.1f} s")  # noqa: T201
    port = free_port()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        server = uvicorn.Server(uvicorn.Config(create_app(), port=port, log_level="warning"))
        thread = threading.Thread(target=copy_context().run, args=(server.run,))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join()
