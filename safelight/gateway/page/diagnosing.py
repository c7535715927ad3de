"""What a person may hand to others to be helped: facts, without keys, prompts or pictures."""

import platform
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from safelight.gallery.index import gallery
from safelight.installed import version
from safelight.redacting import redacted as without_secrets
from safelight.settings import settings

PACKAGES = (
    "safelight", "prefect", "torch", "diffusers", "transformers", "fastapi", "pydantic", "pillow",
    "av", "numpy",
)  # fmt: skip
LATEST = 50
"""Runs that are told of, by their codes alone."""
_ADDRESS = re.compile(r"\b(https?|s3)://[^\s\"']+")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


VERSIONS = {
    "python": platform.python_version(),
    "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    **{name: _version(name) for name in PACKAGES},
}


def diagnostics(system: dict[str, Any]) -> dict[str, Any]:
    """The bundle.

    Args:
        system: what is known of machine, server and store.
    """
    known = settings()
    told = {
        name: "set" if isinstance(value, SecretStr) else value
        for name, value in known.model_dump().items()
        if value not in (None, "")
    }
    pools = [
        {
            "name": pool.name,
            "type": pool.kind,
            "paused": pool.paused,
            "workers": [
                {
                    "status": worker.status and worker.status.value,
                    "seen": worker.last_heartbeat_time,
                    "devices": pool.devices.get(worker.name, {}),
                }
                for worker in pool.workers
            ],
        }
        for pool in system["pools"]
    ]
    runs = gallery().database.read(
        lambda c: c.execute(
            "SELECT flow, at, seconds, device, success, code FROM runs ORDER BY at DESC LIMIT ?",
            (LATEST,),
        ).fetchall()
    )
    names = ("flow", "at", "seconds", "device", "success", "code")
    bundle = {
        "versions": VERSIONS,
        "settings": told,
        "system": {**system, "pools": pools},
        "latest_runs": [dict(zip(names, run, strict=True)) for run in runs],
    }
    return redacted(bundle)


def redacted(value: Any) -> Any:  # noqa: ANN401  (whatever JSON holds)
    """The same without secrets, addresses of servers and the folders of people."""
    if isinstance(value, dict):
        return {str(name): redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    if isinstance(value, str | Path):
        return _ADDRESS.sub(r"\1://...", without_secrets(str(value)))
    return value
