"""How tests connect the engines to the servers that stand for the providers."""

from typing import Any

from safelight.engines.choosing import engines
from safelight.engines.remote.provider import RemoteEngine
from safelight.settings import settings
from tests.engines.remote import fal_server, kling_server, runware_server, sync_server
from tests.engines.remote.providing import SIGNATURE

SECRETS = (
    *fal_server.KEY.split(":"),
    runware_server.KEY,
    kling_server.ACCESS,
    kling_server.SECRET,
    sync_server.KEY,
    SIGNATURE,
)
"""Every key that tests use, and the signature of results' addresses."""
QUICK = {
    "SAFELIGHT_PROVIDER_POLL_SECONDS": "0.01",
    "SAFELIGHT_PROVIDER_PATIENCE_SECONDS": "2",
    "SAFELIGHT_PROVIDER_ANSWER_SECONDS": "5",
}


def environment(*servers: Any) -> dict[str, str]:
    """Variables that connect the providers for which servers stand."""
    found = dict(QUICK)
    for server in servers:
        if isinstance(server, fal_server.Fal):
            places = ("SAFELIGHT_FAL_URL", "SAFELIGHT_FAL_API_URL", "SAFELIGHT_FAL_STORAGE_URL")
            found |= {"SAFELIGHT_FAL_KEY": fal_server.KEY, **dict.fromkeys(places, server.url)}
        elif isinstance(server, runware_server.Runware):
            found |= {
                "SAFELIGHT_RUNWARE_KEY": runware_server.KEY,
                "SAFELIGHT_RUNWARE_URL": f"{server.url}/v1",
            }
        elif isinstance(server, kling_server.Kling):
            found |= {
                "SAFELIGHT_KLING_ACCESS_KEY": kling_server.ACCESS,
                "SAFELIGHT_KLING_SECRET_KEY": kling_server.SECRET,
                "SAFELIGHT_KLING_URL": server.url,
            }
        else:
            found |= {
                "SAFELIGHT_SYNCLABS_KEY": sync_server.KEY,
                "SAFELIGHT_SYNCLABS_URL": server.url,
            }
    return found


def connected(patch: Any, *servers: Any, **more: str) -> None:
    """Set the variables, and read them."""
    for name, value in (environment(*servers) | more).items():
        patch.setenv(name, value)
    settings.cache_clear()
    forget_standing()


def forget_standing() -> None:
    """Have every provider asked again how we stand."""
    for engine in engines().values():
        if isinstance(engine, RemoteEngine):
            engine._standing.clear()
