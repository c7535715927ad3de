"""Servers of our own, and how a configured one is asked."""

import base64
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    temporary_settings,
)

from safelight.cli.server import answers, prefect_api, running_server, silence
from safelight.client.asking import patient_client
from safelight.errors import EngineOfflineError, InvalidFieldValueError, PipelineError


class Picky(BaseHTTPRequestHandler):
    """Answers whoever has the header and the credentials."""

    seen: list[str] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        credentials = base64.b64encode(b"crew:secret").decode()
        known = self.headers["X-Gate"] == "open"
        known &= self.headers["Authorization"] == f"Basic {credentials}"
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(made.with_suffix(".key")), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture
def picky(certificate: Path) -> Iterator[str]:
    """Address of a server with a certificate of its own that asks for a header and credentials."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Picky)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"https://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    serving.join()
    server.server_close()


KNOWN = {PREFECT_API_AUTH_STRING: "crew:secret", PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Gate": "open"}}


def test_a_server_is_asked_with_the_settings_of_prefect(picky: str, certificate: Path):
    with temporary_settings({**KNOWN, PREFECT_API_SSL_CERT_FILE: str(certificate)}):
        assert silence(picky) is None
    with temporary_settings({**KNOWN, PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
        assert silence(picky) is None
    with temporary_settings(KNOWN):
        assert "CERTIFICATE_VERIFY_FAILED" in (silence(picky) or "")
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(certificate)}):
        assert "403" in (silence(picky) or "")


def test_a_patient_client_trusts_whom_prefect_trusts(
    picky: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trusted = Path(shutil.copy(certificate, tmp_path / "trusted.pem"))
    read: list[object] = []
    reading = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda **how: read.append(how) or reading(**how)
    )

    def ask() -> int:
        with patient_client(seconds=0) as client:
            return client.hello().status_code

    known = {**KNOWN, PREFECT_API_URL: picky}
    with temporary_settings({**known, PREFECT_API_SSL_CERT_FILE: str(trusted)}):
        assert [ask(), ask()] == [200, 200]
        assert len(read) == 1  # for both
        trusted.write_bytes(Path(certifi.where()).read_bytes())
        with pytest.raises(PipelineError, match="certificate"):
            ask()
    with temporary_settings({**known, PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
        assert ask() == 200
    with temporary_settings(known), pytest.raises(PipelineError, match="certificate"):
        ask()


def test_a_file_of_certificates_that_is_not_there_is_named(picky: str, tmp_path: Path):
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(tmp_path / "none.pem")}):
        assert not answers(picky)


def test_the_error_of_a_dead_server_says_where_its_address_comes_from(
    monkeypatch: pytest.MonkeyPatch,
):
    with socket.socket() as silent:  # bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        with (
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(EngineOfflineError, match="environment variable PREFECT_API_URL"),
            prefect_api(),
        ):
            raise AssertionError


def test_nothing_is_started_on_a_port_of_somebody_else(volume: Path):
    Picky.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Picky) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        with (
            pytest.raises(InvalidFieldValueError, match=str(other.server_port)),
            running_server(other.server_port, ui=False),
        ):
            raise AssertionError
        other.shutdown()
        serving.join()
    assert Picky.seen == []
    assert not list(volume.rglob("*.db"))
