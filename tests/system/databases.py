"""PostgreSQL and Redis on loopback, each with a folder of its own, run as a user without rights."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.store.servers import free_ports, until

DEBIAN = "/usr/lib/postgresql/*/bin"
"""Where Debian keeps the programs that its own scripts call."""


def program(name: str, package: str) -> str:
    """Path of a program.

    Skips:
        It is not installed.
    """
    folders = sorted(Path("/").glob(DEBIAN.removeprefix("/")), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


@contextmanager
def postgres_server(folder: Path, password: str) -> Iterator[int]:
    """PostgreSQL with the user and the database `prefect`; gives its port.

    Args:
        folder: does not exist yet; every user may enter the one that it lies in.
        password: of the user.

    Skips:
        It is not installed, or there is no user to run it as.
    """
    initdb, postgres = program("initdb", "postgresql"), program("postgres", "postgresql")
    createdb = program("createdb", "postgresql")
    someone = _someone()
    folder.mkdir()
    secret = folder / "password"
    secret.write_text(password)
    _give(folder, someone)
    data = folder / "data"
    made = subprocess.run(
        [
            *(initdb, "--pgdata", str(data), "--username", "prefect", "--pwfile", str(secret)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        **someone,
    )
    assert made.returncode == 0, made.stderr[-800:]
    (port,) = free_ports(1)
    words = [postgres, "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    with _running(words, folder, someone, signal.SIGINT):  # the stop signal of the compose file
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
        at = ("--host", "127.0.0.1", "--port", str(port), "--username", "prefect")

        def made_database() -> bool:
            done = subprocess.run(
                [createdb, *at, "--maintenance-db", "postgres", "prefect"],
                env=environment,
                capture_output=True,
                check=False,
            )
            return done.returncode == 0

        until(lambda: _listens(port), 60)
        until(made_database, 60)
        yield port


@contextmanager
def redis_server(folder: Path, password: str) -> Iterator[int]:
    """Redis with a password; gives its port.

    Args:
        folder: does not exist yet; every user may enter the one that it lies in.
        password: asked of clients.

    Skips:
        It is not installed, or there is no user to run it as.
    """
    redis = program("redis-server", "redis-server")
    someone = _someone()
    folder.mkdir()
    (port,) = free_ports(1)
    config = folder / "redis.conf"
    config.write_text(f"requirepass {password}\nbind 127.0.0.1\nport {port}\n")
    _give(folder, someone)
    words = [redis, str(config), "--dir", str(folder), "--appendonly", "yes"]
    with _running(words, folder, someone, signal.SIGTERM):
        until(lambda: _listens(port), 60)
        yield port


@contextmanager
def _running(words: list[str], folder: Path, someone: dict, stop: signal.Signals) -> Iterator[None]:
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output, **someone)
    try:
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _someone() -> dict:
    """Arguments that let a process run as an ordinary user, which PostgreSQL insists on."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _give(folder: Path, someone: dict) -> None:
    if someone:
        for path in (folder, *folder.iterdir()):
            os.chown(path, someone["user"], someone["group"])


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
