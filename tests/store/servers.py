"""Real servers for the tests of the store: S3 on loopback, and a line that can be cut or held."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from pydantic import SecretStr

from safelight.store.s3 import Bucket

ACCESS_KEY, SECRET_KEY = "safelight-key", "safelight-secret-key"


@dataclass(frozen=True)
class S3Server:
    """One S3 service and a bucket in it."""

    url: str
    """http://host:port."""
    bucket: str
    """Its name."""
    checks_signatures: bool = True
    """Whether links that expired or were changed are refused; moto opens them."""

    def client(self):
        """A plain client, for looking at the store from outside."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
            ),
        )

    def opened(
        self,
        prefix: str,
        *,
        url: str | None = None,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
    ) -> Bucket:
        """The store under test, over another address or with other keys when told so."""
        return Bucket(
            self.bucket,
            prefix,
            endpoint_url=url or self.url,
            region="us-east-1",
            access_key=SecretStr(access_key),
            secret_key=SecretStr(secret_key),
            path_style=True,
        )

    def settings(self, prefix: str) -> dict[str, str]:
        """Variables by which any process has its store at a prefix."""
        return {
            "SAFELIGHT_STORE": f"s3://{self.bucket}/{prefix}",
            "SAFELIGHT_S3_ENDPOINT_URL": self.url,
            "SAFELIGHT_S3_ACCESS_KEY": ACCESS_KEY,
            "SAFELIGHT_S3_SECRET_KEY": SECRET_KEY,
        }

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto behind real HTTP, in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = S3Server(f"http://{host}:{port}", "safelight", checks_signatures=False)
        found.client().create_bucket(Bucket=found.bucket)
        yield found
    finally:
        server.stop()


@contextmanager
def radosgw_server(folder: Path) -> Iterator[S3Server]:
    """Ceph's S3 service on one monitor and one store in memory, all on loopback.

    Skips:
        A program of it is not installed.
    """
    for program in ("radosgw", "ceph-mon", "ceph-osd", "ceph", "monmaptool", "radosgw-admin"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian packages radosgw, ceph-mon, ceph-osd)")
    folder.mkdir(parents=True)
    for name in ("mon", "osd", "rgw", "run"):
        (folder / name).mkdir()
    mon, mon_old, gateway = free_ports(3)
    cluster = str(uuid4())
    monitors = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_old}]"
    config = folder / "ceph.conf"
    config.write_text(_CEPH.format(folder=folder, cluster=cluster, mon=monitors, port=gateway))
    environment = {**os.environ, "CEPH_CONF": str(config)}

    def run(*words: str) -> str:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-800:]}"
        return done.stdout

    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / f"{words[0]}.out").open("wb") as output:
            running.append(
                subprocess.Popen([*words, "-f"], env=environment, stdout=output, stderr=output)
            )

    try:
        monmap, keyring = str(folder / "monmap"), str(folder / "keyring")
        run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", monitors, monmap)
        run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        start("ceph-mon", "-i", "a")
        disk = str(uuid4())
        assert run("ceph", "osd", "new", disk).strip() == "0"
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        start("ceph-osd", "-i", "0")
        until(
            lambda: json.loads(run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1,
            60,
            0.3,
        )
        keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        run("radosgw-admin", "user", "create", "--uid", "t", "--display-name", "t", *keys)
        start("radosgw", "-n", "client.admin")
        found = S3Server(f"http://127.0.0.1:{gateway}", "safelight")
        until(lambda: answers(found.url), 60, 0.2)
        found.client().create_bucket(Bucket=found.bucket)
        yield found
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Line:
    """A TCP line to a server that a test can cut or hold; a context manager.

    Args:
        port: of the server on loopback.
        cut_connections: this many connections are cut, the first ones.
        cut_after: bytes, both ways together, after which they are cut.
        held_after: bytes from the client after which no more of a connection get through until
            `released` is set.
    """

    def __init__(
        self,
        port: int,
        *,
        cut_connections: int = 0,
        cut_after: int = 0,
        held_after: int | None = None,
    ) -> None:
        self._server_port = port
        self._cuts = cut_connections
        self._cut_after = cut_after
        self.cut = 0
        """Connections that were cut."""
        self.reached = threading.Event()
        """Set when bytes of the client are held back."""
        self.released = threading.Event()
        self._hold_after = held_after
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        """What the client connects to."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                _close(end)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                with self._lock:
                    self._open += [client, server]
                    doomed = self.cut < self._cuts
                    self.cut += doomed
                budget = [self._cut_after] if doomed else None
                for source, sink, gated in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._pump, args=(source, sink, gated, budget), daemon=True
                    ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, gated: bool, budget: list[int] | None
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if gated and self._hold_after is not None and passed > self._hold_after:
                    self.reached.set()
                    self.released.wait()
                if budget is not None:
                    data = data[: budget[0]]
                    budget[0] -= len(data)
                sink.sendall(data)
                if budget is not None and budget[0] <= 0:
                    break
        for end in (source, sink):
            _close(end)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(holds, seconds: float = 60, pause: float = 0.02) -> None:
    """Wait for a condition, looked at after each pause; fail when it does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(pause)


def answers(url: str) -> bool:
    """Whether a web server answers, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


_CEPH = """
[global]
fsid = {cluster}
mon host = {mon}
mon initial members = a
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
mon max pg per osd = 1000
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
pid file = {folder}/run/$name.pid
[mon]
mon data = {folder}/mon
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[client.admin]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 32
rgw override bucket index max shards = 1
"""
