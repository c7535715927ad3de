"""Models are fetched by name or address, looked into, and entered with where they came from."""

import json
import logging
import os
import pickle
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from safelight.account import person
from safelight.digests import sha256_of
from safelight.errors import (
    AuthMissingError,
    ChecksumMismatchError,
    ChecksumMissingError,
    DependencyMissingError,
    DownloadFailedError,
    ForbiddenPathError,
    InvalidFieldValueError,
    InvalidMediaError,
    LicenseUnknownError,
    MissingFileError,
    UnsafePickleError,
)
from safelight.settings import reload_settings
from safelight.weights import asking, catalog
from safelight.weights import cards as cards_module
from safelight.weights.add_ons import find_add_on
from safelight.weights.asking import Web
from safelight.weights.cards import Card, cards
from safelight.weights.catalog import PARTS, Fetched, Wanted, get_model
from safelight.weights.fetching import Fetch, OnBytes
from safelight.weights.kinds import ModelType
from safelight.weights.licences import is_known, remark
from safelight.weights.places import CARDS
from safelight.weights.registry import registry
from tests.listening import listening
from tests.weights.files import LORA, safetensors

MODEL = safetensors({"model.diffusion_model.a": (9, 9)}, fill=3)
STYLE = safetensors(LORA, {"modelspec.license": "MIT"}, fill=4)
TOKEN = "hf_" + "s" * 20
FILES = {
    "/m.safetensors": MODEL,
    "/style.safetensors": STYLE,
    "/short.safetensors": MODEL[:-7],
    "/evil.ckpt": pickle.dumps(os.system),
    "/liar.safetensors": pickle.dumps(print),
    "/ann/style/resolve/c0ffee/style.safetensors": STYLE,
    "/api/download/models/77": STYLE,
}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hubs do; `asked` keeps path, host and authorization of each request."""

    asked: list[tuple[str, str, str | None]] = []
    elsewhere = ""
    told: dict[str, object] = {}

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append((path, self.headers["Host"], self.headers.get("Authorization")))
        if path in self.told:
            self._send(json.dumps(self.told[path]).encode(), "application/json")
        elif path.startswith("/gated"):
            self._send(b"", status=401 if self.headers.get("Authorization") is None else 403)
        elif path.startswith("/away/"):
            self._send(b"", status=302, location=self.elsewhere + path.removeprefix("/away"))
        elif path in FILES:
            self._send(FILES[path], "application/octet-stream")
        else:
            self._send(b"", status=404)

    def _send(self, body: bytes, kind: str = "", status: int = 200, location: str = "") -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Location": location}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with listening(Hub) as url:
        monkeypatch.setenv("SAFELIGHT_HF_ENDPOINT", url)
        monkeypatch.setenv("SAFELIGHT_CIVITAI_ENDPOINT", url)
        reload_settings()
        Hub.asked.clear()
        Hub.told = {
            "/api/models/ann/style/revision/main": {
                "sha": "c0ffee",
                "cardData": {"license": "other", "license_name": "my-nc-licence"},
                "siblings": [
                    {
                        "rfilename": "style.safetensors",
                        "size": len(STYLE),
                        "lfs": {"sha256": sha256_of(STYLE)},
                    }
                ],
            },
            "/api/v1/model-versions/77": {
                "modelId": 7,
                "baseModel": "SDXL 1.0",
                "trainedWords": ["glow"],
                "model": {"type": "LORA"},
                "files": [
                    {
                        "name": "glow.safetensors",
                        "primary": True,
                        "hashes": {"SHA256": sha256_of(STYLE).upper()},
                    }
                ],
            },
            "/api/v1/models/7": {"allowCommercialUse": ["Image", "Sell"]},
        }
        yield url


def no_s3(bucket: str, key: str) -> str:
    raise AssertionError(f"{bucket}/{key} was not asked for")


def quick(web: Web, on_bytes: OnBytes) -> Fetch:
    return Fetch(web, on_bytes, sleep=lambda _: None)


def get(what: str, **known: object) -> Fetched:
    wanted = Wanted(what, **known)  # type: ignore[arg-type]
    return get_model(wanted, no_s3, lambda done, total: None, quick)


def test_a_licence_and_a_checksum_have_to_be_known_or_acknowledged(hub: str, volume: Path):
    address = f"{hub}/m.safetensors"
    with pytest.raises(LicenseUnknownError, match="accept-licence"):
        get(address)
    with pytest.raises(ChecksumMissingError, match="accept-unchecked"):
        get(address, accept_licence=True)
    assert Hub.asked == []
    done = get(address, accept_licence=True, accept_unchecked=True)
    assert done.fetched
    assert done.acknowledged == ("LICENSE_UNKNOWN", "CHECKSUM_MISSING")
    assert done.info.file_path == volume / "models" / "m.safetensors"
    assert done.info.file_path.read_bytes() == MODEL
    assert (done.info.sha256, done.info.licence) == (sha256_of(MODEL), None)
    assert done.info.metadata["source"] == address
    taken = registry().acknowledgements(sha256_of(MODEL))
    assert [each["code"] for each in taken] == ["LICENSE_UNKNOWN", "CHECKSUM_MISSING"]
    assert {each["who"] for each in taken} == {person()}
    assert remark("m", done.info.licence) is not None


def test_what_somebody_looked_up_needs_no_acknowledgement(hub: str):
    done = get(f"{hub}/m.safetensors", sha256=sha256_of(MODEL), licence="MIT", name="mine")
    assert (done.info.name, done.info.licence, done.acknowledged) == ("mine", "MIT", ())
    assert registry().acknowledgements() == []


def test_a_wrong_checksum_is_never_taken(hub: str, volume: Path):
    with pytest.raises(ChecksumMismatchError):
        get(f"{hub}/m.safetensors", sha256="1" * 64, licence="MIT", accept_unchecked=True)
    assert list((volume / "models").rglob("*.safetensors")) == []


def test_what_is_there_already_is_not_fetched_again(hub: str):
    known = {"sha256": sha256_of(MODEL), "licence": "MIT"}
    get(f"{hub}/m.safetensors", **known)
    asked = len(Hub.asked)
    again = get(f"{hub}/m.safetensors", **known)
    assert not again.fetched
    assert len(Hub.asked) == asked


def test_another_file_of_the_name_is_never_written_over(hub: str, volume: Path):
    mine = volume / "models" / "m.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    known = {"sha256": sha256_of(MODEL), "licence": "MIT"}
    for kind in (None, ModelType.CHECKPOINT):
        with pytest.raises(InvalidFieldValueError, match="there already"):
            get(f"{hub}/m.safetensors", model_type=kind, **known)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("evil.ckpt", UnsafePickleError),
        ("liar.safetensors", UnsafePickleError),
        ("short.safetensors", InvalidMediaError),
    ],
)
def test_fetched_files_are_looked_into_like_all_others(
    hub: str, volume: Path, file: str, error: type[Exception]
):
    with pytest.raises(error):
        get(f"{hub}/{file}", accept_licence=True, accept_unchecked=True)
    left = [p for p in (volume / "models").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == []


def test_hugging_face_tells_content_and_licence(hub: str, volume: Path):
    for address in (
        "hf:ann/style/style.safetensors",
        f"{hub}/ann/style/blob/main/style.safetensors",
    ):
        done = get(address)
        assert done.acknowledged == ()
    assert done.info.file_path == volume / "models" / "loras" / "style.safetensors"
    assert done.info.licence == "my-nc-licence"
    assert "forbids" in str(remark("x", done.info.licence))
    assert done.info.metadata["source"] == "hf:ann/style/style.safetensors@c0ffee"
    assert find_add_on("loras", "style") == done.info.file_path
    with pytest.raises(MissingFileError, match=r"no file none\.safetensors"):
        get("hf:ann/style/none.safetensors")


def test_civitai_tells_content_words_and_what_is_permitted(hub: str, volume: Path):
    done = get("civitai:77")
    assert done.info.file_path == volume / "models" / "loras" / "glow.safetensors"
    assert done.info.metadata["trigger_words"] == ["glow"]
    assert done.info.licence == "Civitai, commercial use: Image, Sell"
    assert remark("glow", done.info.licence) is None
    Hub.told["/api/v1/models/7"] = {"allowCommercialUse": "None"}
    again = get(f"{hub}/models/7?modelVersionId=77")
    assert not again.fetched
    assert "forbids" in str(remark("glow", again.info.licence))


def test_a_token_goes_to_its_own_host_alone(
    hub: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("SAFELIGHT_HF_TOKEN", TOKEN)
    reload_settings()
    other: list[str | None] = []

    class Storage(Hub):
        def do_GET(self) -> None:
            other.append(self.headers.get("Authorization"))
            self._send(STYLE)

    FILES.pop("/ann/style/resolve/c0ffee/style.safetensors")
    with listening(Storage) as storage, caplog.at_level(logging.DEBUG):
        Hub.elsewhere = f"{storage}/signed?X-Signature=secret-signature&file="

        def redirected(self: Hub) -> None:
            path = urlsplit(self.path).path
            self.asked.append((path, self.headers["Host"], self.headers.get("Authorization")))
            if path.endswith("style.safetensors"):
                self._send(b"", status=302, location=self.elsewhere)
            else:
                self._send(json.dumps(self.told[path]).encode(), "application/json")

        monkeypatch.setattr(Hub, "do_GET", redirected)
        done = get("hf:ann/style/style.safetensors")
    FILES["/ann/style/resolve/c0ffee/style.safetensors"] = STYLE
    assert done.fetched
    assert {asked[2] for asked in Hub.asked} == {f"Bearer {TOKEN}"}
    assert other == [None]
    assert TOKEN not in caplog.text
    assert "secret-signature" not in caplog.text
    assert TOKEN not in repr(reload_settings())
    assert TOKEN not in json.dumps(done.info.model_dump(mode="json"))


def test_a_file_behind_terms_asks_for_a_token(hub: str, monkeypatch: pytest.MonkeyPatch):
    known = {"sha256": "0" * 64, "licence": "MIT"}
    with pytest.raises(AuthMissingError, match="SAFELIGHT_HF_TOKEN"):
        get(f"{hub}/gated/m.safetensors", **known)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of `localhost`, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def public(hub: str, certificate: Path) -> Iterator[tuple[Web, str]]:
    """A hub over TLS at a name that counts as public, and who asks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    client = httpx.Client(verify=ssl.create_default_context(cafile=str(certificate)))
    known = {"localhost": ["93.184.215.14"]}
    web = Web(resolve=lambda host: known.get(host, [host]), _client=client)
    with listening(Hub, context) as url:
        yield web, url.replace("http://127.0.0.1", "https://localhost")
    web.close()


@pytest.mark.parametrize("around", ["", "127.0.0.1,::1"])
def test_an_answer_from_inside_for_a_public_name_is_not_read(
    public: tuple[Web, str], around: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", around)  # which names no proxy
    # the name was public when it was looked up, and leads to this machine when it is asked
    web, url = public
    with pytest.raises(ForbiddenPathError, match="answered from inside"):
        web.object_at(f"{url}/api/v1/models/7", None)


@pytest.mark.parametrize(
    ("leads_to", "says"),
    [
        ("https://127.0.0.1:1/x", "inside a private network"),
        ("https://10.1.2.3/x", "inside a private network"),
        ("https://[::1]/x", "inside a private network"),
        ("https://[::ffff:169.254.169.254]/latest", "inside a private network"),
        ("http://93.184.215.14/x", "without encryption"),
        ("http://169.254.169.254/latest", "without encryption"),
    ],
)
def test_a_public_address_that_leads_inside_is_not_followed(
    public: tuple[Web, str], monkeypatch: pytest.MonkeyPatch, leads_to: str, says: str
):
    web, url = public
    # whoever asks through a proxy cannot tell who answers
    monkeypatch.setattr(asking, "getproxies", lambda: {"https": "http://proxy.test"})
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert web.object_at(f"{url}/api/v1/models/7", None)
    Hub.elsewhere = leads_to
    with pytest.raises(ForbiddenPathError, match=says):
        web.object_at(f"{url}/away/x", SecretStr(TOKEN))


@pytest.mark.parametrize("where", ["file:///etc/passwd", "https://", "gopher://a/b"])
def test_a_redirect_to_what_is_no_address_is_not_followed(hub: str, where: str):
    Hub.elsewhere = where
    web = Web()
    with pytest.raises((DownloadFailedError, ForbiddenPathError)):
        web.object_at(f"{hub}/away/", None)
    web.close()


@pytest.mark.parametrize(
    "address",
    [
        "ftp://a/b.safetensors",
        "hf:only/two",
        "civitai:x",
        "s3://bucket",
        "m.safetensors:",
        "https:",
    ],
)
def test_what_is_no_address_is_refused(hub: str, address: str):
    with pytest.raises((InvalidFieldValueError, DownloadFailedError)):
        get(address, accept_licence=True, accept_unchecked=True)


@pytest.mark.parametrize("path", ["/..%5c..%5cx.safetensors", "/.x.safetensors", "/a.exe", "/"])
def test_a_name_that_leads_elsewhere_is_refused(hub: str, path: str):
    with pytest.raises(InvalidFieldValueError):
        get(hub + path, accept_licence=True, accept_unchecked=True)


def test_addresses_are_kept_without_their_secrets(hub: str):
    user = hub.replace("http://", "http://ann:password@")
    done = get(f"{user}/m.safetensors?token=abc", accept_licence=True, accept_unchecked=True)
    assert done.info.metadata["source"] == f"{hub}/m.safetensors"


def test_s3_is_read_through_a_signed_address(hub: str):
    asked: list[tuple[str, str]] = []

    def link(bucket: str, key: str) -> str:
        asked.append((bucket, key))
        return f"{hub}/m.safetensors?X-Amz-Signature=abc"

    wanted = Wanted("s3://models/sd/mine.safetensors", licence="MIT", sha256=sha256_of(MODEL))
    done = get_model(wanted, link, lambda done, total: None, quick)
    assert asked == [("models", "sd/mine.safetensors")]
    assert done.info.name == "mine"
    assert done.info.metadata["source"] == "s3://models/sd/mine.safetensors"


def card(**changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": "tiny",
        "model_type": "checkpoint",
        "source": "hf:ann/tiny/m.safetensors",
        "file_name": "tiny-file.safetensors",
        "size": len(MODEL),
        "sha256": sha256_of(MODEL),
        "licence": "Apache-2.0",
        "base_model": "sd",
        "description": "Small.",
    }
    return {**facts, **changes}


def test_a_card_is_fetched_by_its_name(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tiny.json").write_text(json.dumps(card()))
    found = cards(tmp_path)
    monkeypatch.setattr(cards_module, "CARDS", tmp_path)
    monkeypatch.setattr(catalog, "cards", lambda: found)
    monkeypatch.setattr(cards_module, "cards", lambda: found)
    FILES["/ann/tiny/resolve/main/m.safetensors"] = MODEL
    done = get("tiny")
    assert (done.info.name, done.info.licence) == ("tiny", "Apache-2.0")
    assert done.info.description == "Small."
    assert done.info.base_model == "sd"
    assert done.info.file_path.name == "tiny-file.safetensors"
    assert all(path.startswith("/ann/tiny/resolve/main/") for path, _, _ in Hub.asked)
    with pytest.raises(DependencyMissingError, match="tiny"):
        get("tinny")


def test_a_file_that_is_no_card_is_named(tmp_path: Path):
    (tmp_path / "bad.json").write_text(json.dumps(card(sha256="x")))
    with pytest.raises(InvalidMediaError, match=r"bad\.json"):
        cards(tmp_path)


def test_the_cards_that_are_shipped_are_whole():
    found = cards(CARDS)
    assert len(found) >= 3
    for name, one in found.items():
        assert isinstance(one, Card)
        assert (CARDS / f"{name}.json").is_file()
        assert is_known(one.licence)
        assert one.source.startswith(("https://", "hf:"))


def test_no_part_is_left_behind(hub: str, volume: Path):
    get(f"{hub}/m.safetensors", accept_licence=True, accept_unchecked=True)
    left = [p.suffix for p in (volume / "models" / PARTS).iterdir()]
    assert set(left) <= {".lock"}
    assert registry().scan().models == 1


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        (None, "not known"),
        ("other", "not known"),
        ("MIT", None),
        ("CreativeML-OpenRAIL-M", None),
        ("cc-by-nc-sa-4.0", "forbids"),
        ("flux-1-dev-non-commercial-license", "forbids"),
        ("Stability AI Non-Commercial Research Community License", "forbids"),
        ("Apache-2.0", None),
        ("NCSA", None),
    ],
)
def test_what_is_said_of_licences(licence: str | None, says: str | None):
    said = remark("m", licence)
    assert (said is None) if says is None else (said is not None and says in said)
