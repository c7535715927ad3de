"""The whole of Safelight on this machine, started as people start it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@contextmanager
def safelight_up(root: Path, page_port: int = 0) -> Iterator[dict[str, str]]:
    """`safelight up` on a free port with this volume root; the environment of its users.

    Args:
        root: the volume.
        page_port: of the page; 0 serves none, which costs nothing.
    """
    from safelight.cli.server import free_port, prefect_home
    from safelight.cli.server_password import password_of

    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"VOLUME_ROOT": str(root), "PATH": f"{BIN}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [BIN / "safelight", "up", "--port", str(port), "--page-port", str(page_port)],
        cwd=CHECKOUT,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    ready = "Page: " if page_port else "Prefect UI and API"
    for line in process.stdout:
        said += line
        if ready in line:
            break
    assert ready in said, said
    log = (root / "up.log").open("w")
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=log)
    url = f"http://127.0.0.1:{port}/api"
    password = password_of(prefect_home(root), url)
    assert password is not None
    try:
        yield {**environment, "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password}
    finally:
        process.terminate()
        ended = process.wait(90)
        process.stdout.close()
        drain.wait(30)
        log.close()
    assert ended in (0, 130)
