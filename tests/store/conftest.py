"""Places to keep bytes in: a folder, and buckets of real S3 services."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from safelight.store.backend import Backend
from safelight.store.local import LocalFolder
from safelight.store.store import Store
from tests.store.servers import S3Server, moto_server, radosgw_server


@dataclass(frozen=True)
class Place:
    """A backend under test, and the way around it."""

    backend: Backend
    """What is tested."""
    overwrite: Callable[[str, bytes], None]
    """Puts other bytes under a key, as a failing disk or a stranger would."""
    server: S3Server | None = None
    """None for a folder."""
    prefix: str = ""
    """Where its keys lie in the server's bucket."""

    def store(self, scratch: Path) -> Store:
        """A store over the backend with its own scratch folder."""
        return Store(self.backend, scratch, 1 << 20, remote=self.server is not None)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """A moto server, one a session."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A Ceph object gateway, one a session."""
    with radosgw_server(tmp_path_factory.mktemp("ceph") / "cluster") as server:
        yield server


def bucket_place(server: S3Server) -> Place:
    """A prefix of its own in a server's bucket."""
    prefix = f"test/{uuid4()}"
    client = server.client()

    def overwrite(key: str, data: bytes) -> None:
        name = f"{prefix}/{key}"
        facts = client.head_object(Bucket=server.bucket, Key=name)["Metadata"]
        client.put_object(Bucket=server.bucket, Key=name, Body=data, Metadata=facts)

    return Place(server.opened(prefix), overwrite, server, prefix)


def folder_place(root: Path) -> Place:
    """A folder."""

    def overwrite(key: str, data: bytes) -> None:
        (root / key).write_bytes(data)

    return Place(LocalFolder(root), overwrite)


@pytest.fixture(params=["folder", "moto", pytest.param("radosgw", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each kind of backend in turn, empty."""
    if request.param == "folder":
        return folder_place(tmp_path / "store")
    return bucket_place(request.getfixturevalue(request.param))
