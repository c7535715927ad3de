"""What the answer of an S3 service means is told by its cause, and said in its own words."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from safelight.errors import (
    AuthInvalidError,
    ChecksumMismatchError,
    DiskFullError,
    ForbiddenPathError,
    InvalidFieldValueError,
    MissingFileError,
    PipelineError,
    StoreUnavailableError,
)
from safelight.store.answers import LONGEST_PAUSE_SECONDS, OTHER, RULES, retry_after, rule_for
from safelight.store.patience import Patient
from safelight.store.store import Store
from tests.store.answering import Answer, Asked, Service, refusal, service
from tests.store.servers import S3Server

LARGE = 17 * 2**20
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("safelight.store.s3.ATTEMPTS", 1)
    monkeypatch.setattr("safelight.store.patience.FIRST_SECONDS", 0.01)
    with service() as known:
        yield known


def first(answers: list[Answer], then: Answer) -> Callable[[Asked], Answer]:
    """Each of some answers once, then another for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if left else then


@pytest.mark.parametrize(
    "passing",
    [
        refusal(400, "RequestTimeoutException", "idle"),
        refusal(400, "SlowDown", "less"),
        refusal(400, "ThrottlingException"),
        refusal(403, "RequestThrottled"),
        refusal(404, "NoSuchUpload"),
        refusal(409, "OperationAborted"),
        refusal(429, "AnythingElse"),
        refusal(503, "ServiceUnavailable"),
        Answer(504, b"<html>gateway</html>"),
        Answer(521),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[29:60].decode()}",
)
def test_what_passes_is_asked_again(told: Service, passing: Answer):
    told.answer = first([passing, passing], Answer(headers={"ETag": '"x"'}))
    Patient(told.bucket(), 60, stops=False).write("cache/x", b"bytes", "text/plain")
    assert [asked.body for asked in told.asked] == [b"bytes"] * 3


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (refusal(400, "ExpiredToken", "The token is over."), AuthInvalidError, "The token is over"),
        (refusal(403, "RequestTimeTooSkewed"), AuthInvalidError, "clock"),
        (refusal(403, "AccessDenied", "no writing here"), AuthInvalidError, "no writing here"),
        (refusal(403, "QuotaExceeded"), DiskFullError, "no room"),
        (refusal(400, "BadDigest"), ChecksumMismatchError, "other bytes"),
        (refusal(400, "KMS.DisabledException"), ForbiddenPathError, "SAFELIGHT_S3_KMS_KEY"),
        (refusal(400, "AuthorizationHeaderMalformed"), InvalidFieldValueError, "S3_REGION"),
        (refusal(400, "MadeUp", "Send\nit\tright."), ForbiddenPathError, "Send it right"),
        (refusal(501, "NotImplemented"), ForbiddenPathError, "cannot do"),
        (refusal(404, "NoSuchBucket"), MissingFileError, "no bucket bucket"),
    ],
)
def test_what_stays_is_said_at_once_in_the_services_words(
    told: Service, answer: Answer, kind: type[PipelineError], says: str
):
    told.answer = lambda asked: answer
    with pytest.raises(kind) as caught:
        Patient(told.bucket(), 60, stops=False).write("cache/x", b"bytes", "text/plain")
    assert says in str(caught.value)
    assert str(answer.status) in str(caught.value)
    assert not caught.value.transient
    assert len(told.asked) == 1


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "ExpiredToken", "temporary keys"),
        (403, "AccessDenied", "not yours"),
    ],
)
def test_a_refused_question_for_the_size_is_asked_so_that_the_reason_shows(
    told: Service, status: int, code: str, says: str
):
    told.answer = lambda asked: refusal(status, code, "not yours")
    with pytest.raises(AuthInvalidError, match=says):
        told.bucket().size("outputs/x")
    assert [asked.method for asked in told.asked][-1] == "GET"


def test_the_size_is_known_where_only_get_is_allowed(told: Service):
    told.answer = lambda asked: (
        Answer(403) if asked.method == "HEAD" else Answer(200, b"123456", {"ETag": '"x"'})
    )
    assert told.bucket().size("outputs/x") == 6
    told.answer = lambda asked: Answer(403) if asked.method == "HEAD" else refusal(404, "NoSuchKey")
    assert told.bucket().size("outputs/x") is None


def test_a_service_says_how_long_to_wait(told: Service, monkeypatch: pytest.MonkeyPatch):
    waited: list[float] = []
    monkeypatch.setattr("safelight.store.patience.time.sleep", waited.append)
    told.answer = first([refusal(503, "SlowDown", Retry_After="7")], Answer(headers={"ETag": '"'}))
    Patient(told.bucket(), 60, stops=False).write("cache/x", b"bytes", "text/plain")
    assert waited == [7.0]


def test_a_pause_is_a_number_or_a_moment():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after(soon) or 0) <= 100
    assert retry_after("3") == 3
    assert retry_after("-5") == 0
    assert retry_after("1e9") == LONGEST_PAUSE_SECONDS
    assert retry_after("nan") is retry_after("when it suits") is retry_after(None) is None


def test_a_code_counts_for_more_than_a_status():
    for rule in RULES:
        for code in rule.codes:
            for status in (200, 400, 403, 404, 500):
                assert rule_for(status, code.replace("*", "Anything")) is rule
        for status in rule.statuses:
            assert rule_for(status, "Unheard") is rule
    assert rule_for(599, "Unheard").error.transient
    assert rule_for(418, "Unheard") is OTHER


def test_each_code_and_status_stands_under_one_rule():
    codes = [code for rule in RULES for code in rule.codes]
    statuses = [status for rule in RULES for status in rule.statuses]
    assert len(codes) == len(set(codes))
    assert len(statuses) == len(set(statuses))


def test_the_table_of_the_docs_is_that_of_the_code():
    written = (DOCS / "store.md").read_text()
    table = written.partition("<!-- made from safelight/store/answers.py -->\n")[2]
    rows = table.partition("<!-- end -->")[0].splitlines()[2:]
    assert rows == [
        f"| {rule.meaning.format(key='a key', bucket='of that name')} | "
        f"{', '.join(f'`{code}`' for code in rule.codes)} | "
        f"{', '.join(str(status) for status in rule.statuses if status)} | "
        f"{'yes' if rule.error.transient else ''} | `{rule.error.code}` | {rule.remedy} |"
        for rule in (*RULES, OTHER)
    ]


# what goes with an upload


@pytest.mark.parametrize("size", [0, 5, LARGE])
@pytest.mark.parametrize("file", [False, True])
def test_every_upload_carries_the_digest_of_its_body(
    told: Service, tmp_path: Path, size: int, file: bool
):
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST" and asked.path.endswith("?uploads"):
            begun = b"<InitiateMultipartUploadResult><UploadId>1</UploadId>"
            return Answer(200, begun + b"</InitiateMultipartUploadResult>")
        if asked.method == "POST":
            return Answer(200, b"<CompleteMultipartUploadResult/>")
        if "content-md5" not in asked.headers:
            return refusal(400, "InvalidRequest", "Content-MD5 is required")
        return Answer(headers={"ETag": '"x"'})

    told.answer = answer
    told.bucket().write("outputs/x", source if file else data, "video/mp4")
    sent = [asked for asked in told.asked if asked.method == "PUT"]
    assert b"".join(asked.body for asked in sent) == data
    for asked in sent:
        assert asked.headers["content-md5"] == b64encode(hashlib.md5(asked.body).digest()).decode()


@pytest.mark.parametrize("size", [5, LARGE])
def test_an_upload_asks_for_encryption(told: Service, size: int):
    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(200, b"<R><UploadId>1</UploadId></R>")
        return Answer(headers={"ETag": '"x"'})

    told.answer = answer
    bucket = told.bucket(encryption="aws:kms", kms_key="key-of-the-studio")
    bucket.write("outputs/x", bytes(size), "video/mp4")
    begins = next(a for a in told.asked if a.method == "POST" or size < LARGE)
    assert begins.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert begins.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-of-the-studio"


def test_what_is_encrypted_comes_back(moto: S3Server):
    from pydantic import SecretStr

    from safelight.store.s3 import Bucket

    bucket = Bucket(
        moto.bucket,
        "encrypted",
        endpoint_url=moto.url,
        region="us-east-1",
        access_key=SecretStr("a"),
        secret_key=SecretStr("b"),
        path_style=True,
        encryption="AES256",
    )
    bucket.write("x", b"hidden", "text/plain")
    facts = moto.client().head_object(Bucket=moto.bucket, Key="encrypted/x")
    assert facts["ServerSideEncryption"] == "AES256"
    assert bucket.read("x") == b"hidden"


# links


def test_links_name_the_public_address(told: Service):
    bucket = told.bucket(public_url="https://pictures.example:8443")
    assert bucket.link("outputs/x", 60).startswith(
        "https://pictures.example:8443/bucket/outputs/x?"
    )
    bucket.write("outputs/x", b"x", "text/plain")
    assert told.asked, "everything else goes to the endpoint"


@pytest.mark.parametrize(
    ("token", "ends", "says"),
    [
        (None, None, ["good until"]),
        ("token", None, ["or until the temporary keys end"]),
        ("token", timedelta(hours=3), ["when the temporary keys end"]),
    ],
)
def test_a_link_says_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, token: str | None, ends: timedelta | None, says: list[str]
):
    from safelight.store.s3 import Bucket

    moment = datetime.now(UTC) + (ends or timedelta())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": token,
        "AWS_CREDENTIAL_EXPIRATION": moment.isoformat() if ends else None,
    }.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    bucket = Bucket(
        "bucket",
        "",
        endpoint_url="http://127.0.0.1:9",
        region="us-east-1",
        access_key=None,
        secret_key=None,
        path_style=True,
    )
    said = bucket.link_ends(7 * 24 * 3600)
    assert all(text in said for text in says)
    if ends:
        assert f"{moment:%Y-%m-%d %H:%M}" in said
    else:
        assert f"{moment + timedelta(days=7):%Y-%m-%d}" in said


# uploads of finished stages


def test_an_upload_outlasts_more_than_one_patience(
    told: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("safelight.store.store.AGAIN_SECONDS", (0.05, 0.05))
    patience = 1.0
    store = Store(told.bucket(), tmp_path, 0, remote=True, patience_seconds=patience)
    good = Answer(headers={"ETag": '"x"', "Content-Length": "0"})
    away = refusal(503, "SlowDown", Retry_After="2")  # each patience has two tries
    puts = 0

    def answer(asked: Asked) -> Answer:
        nonlocal puts
        if asked.method != "PUT":
            return Answer(404)
        puts += 1
        return away if puts <= 5 else good

    told.answer = answer
    store.put(b"picture", "image/png")
    store.settle()
    assert puts == 6


def test_an_upload_that_always_fails_is_given_up(
    told: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("safelight.store.store.AGAIN_SECONDS", (0.01, 0.01))
    store = Store(told.bucket(), tmp_path, 0, remote=True, patience_seconds=0.1)
    told.answer = lambda asked: Answer(404) if asked.method != "PUT" else refusal(503, "Busy")
    store.put(b"picture", "image/png")
    with pytest.raises(StoreUnavailableError, match="503 Busy"):
        store.settle()
