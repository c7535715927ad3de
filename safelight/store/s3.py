"""The store as a bucket of any S3-compatible service; the only place that imports boto3."""

import base64
import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.errors import (
    AuthInvalidError,
    AuthMissingError,
    ChecksumMismatchError,
    DiskFullError,
    ForbiddenPathError,
    MissingFileError,
    PipelineError,
    StoreUnavailableError,
)
from safelight.store.keys import checked_key

if TYPE_CHECKING:
    from pydantic import SecretStr

MULTIPART_BYTES = 8 * 2**20
"""Size of one part, and the size above which an object is sent in parts."""
THREADS = 4
ATTEMPTS = 4
TIMEOUT_SECONDS = 30
_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_REFUSED = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
    }
)
_FULL = frozenset(
    {"507", "InsufficientStorage", "QuotaExceeded", "EntityTooLarge", "XMinioStorageFull"}
)


class Bucket:
    """Keeps bytes as objects below a prefix of a bucket; an object is seen whole or not at all."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint_url: str | None,
        region: str,
        access_key: "SecretStr | None",
        secret_key: "SecretStr | None",
        path_style: bool,
    ) -> None:
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._where = f"s3://{bucket} at {endpoint_url or 'AWS'}"
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id=access_key.get_secret_value() if access_key else None,
            aws_secret_access_key=secret_key.get_secret_value() if secret_key else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if path_style else "auto"},
                retries={"max_attempts": ATTEMPTS, "mode": "standard"},
                connect_timeout=5,
                read_timeout=TIMEOUT_SECONDS,
                max_pool_connections=4 * THREADS,
            ),
        )

    def write(self, key: str, source: Path | bytes, media_type: str) -> None:
        """See `Backend.write`; large files go up in parts, shown only once all are there."""
        name = self._name(key)
        with self._errors(key):
            if isinstance(source, bytes) and len(source) <= MULTIPART_BYTES:
                digest = hashlib.sha256(source).digest()
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=name,
                    Body=source,
                    ContentType=media_type,
                    ChecksumSHA256=base64.b64encode(digest).decode(),
                )
                return
            with _as_file(source) as path:
                self._client.upload_file(
                    str(path),
                    self.bucket,
                    name,
                    ExtraArgs={"ContentType": media_type, "ChecksumAlgorithm": "SHA256"},
                    Config=_transfer(),
                )

    def read(self, key: str) -> bytes:
        """See `Backend.read`."""
        with self._errors(key):
            answer = self._client.get_object(Bucket=self.bucket, Key=self._name(key))
            with answer["Body"] as body:
                return body.read()

    def fetch(self, key: str, target: Path) -> Path:
        """See `Backend.fetch`; downloads beside `target`, then renames."""
        handle, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
        os.close(handle)
        try:
            with self._errors(key):
                self._client.download_file(self.bucket, self._name(key), name, Config=_transfer())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return target

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        try:
            with self._errors(key):
                head = self._client.head_object(Bucket=self.bucket, Key=self._name(key))
        except MissingFileError:
            return None
        return int(head["ContentLength"])

    def list(self, prefix: str) -> list[str]:
        """See `Backend.list`."""
        found: list[str] = []
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                found.extend(
                    item["Key"].removeprefix(self.prefix) for item in page.get("Contents", [])
                )
        return sorted(found)

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def link(self, key: str, seconds: int) -> str:
        """See `Backend.link`; presigned, so whoever holds it can read the object until it ends."""
        with self._errors(key):
            return self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self._name(key)},
                ExpiresIn=seconds,
            )

    def _name(self, key: str) -> str:
        return self.prefix + checked_key(key)

    @contextmanager
    def _errors(self, key: str) -> Generator[None]:
        """Botocore's exceptions as ours; their texts never hold a secret key or a signature."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            raise self._translated(key, error.response) from error
        except NoCredentialsError as error:
            raise AuthMissingError(
                f"no keys for {self._where}",
                "set SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY",
            ) from error
        except Boto3Error as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError):
                raise self._translated(key, cause.response) from error
            raise self._unreachable(key, error) from error
        except (BotoCoreError, ConnectionError, TimeoutError) as error:
            raise self._unreachable(key, error) from error

    def _translated(self, key: str, response: Any) -> PipelineError:  # noqa: ANN401  (botocore's)
        code = str(response.get("Error", {}).get("Code", "?"))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _MISSING:
            return MissingFileError(
                f"nothing is stored under {key} in {self._where}", "check the artifact's uri"
            )
        if code in _REFUSED or status in (401, 403):
            return AuthInvalidError(
                f"{self._where} refused the keys ({code})",
                "correct SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY and their rights",
            )
        if code in _FULL or status == 507:
            return DiskFullError(
                f"{self._where} has no room for {key} ({code})", "free space there"
            )
        if code in ("BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest"):
            return ChecksumMismatchError(
                f"{self._where} received other bytes for {key} than were sent", "run the flow again"
            )
        if status >= 500 or status == 429 or status == 0:
            return StoreUnavailableError(
                f"{self._where} answered {status} {code} for {key}",
                "look at the S3 service, then run the flow again",
            )
        return ForbiddenPathError(
            f"{self._where} answered {status} {code} for {key}", "check bucket, region and rights"
        )

    def _unreachable(self, key: str, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._where} did not answer for {key}: {type(error).__name__}",
            "check SAFELIGHT_S3_ENDPOINT_URL and that the service runs, then run the flow again",
        )


@contextmanager
def _as_file(source: Path | bytes) -> Generator[Path]:
    if isinstance(source, Path):
        yield source
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(source)
        file.flush()
        yield Path(file.name)


def _transfer() -> Any:  # noqa: ANN401  (boto3 is imported only where it is used)
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MULTIPART_BYTES,
        multipart_chunksize=MULTIPART_BYTES,
        max_concurrency=THREADS,
    )
