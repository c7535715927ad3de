"""The store as a bucket of any S3-compatible service; the only place that imports boto3."""

import hashlib
import io
import time
from base64 import b64encode
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from safelight.errors import (
    AuthMissingError,
    ChecksumMismatchError,
    InvalidFieldValueError,
    MissingFileError,
    PipelineError,
    StoreUnavailableError,
)
from safelight.store.answers import error_of
from safelight.store.disk import disk_errors, half_made
from safelight.store.keys import checked_key, checked_prefix

if TYPE_CHECKING:
    from pydantic import SecretStr

MULTIPART_BYTES = 8 * 2**20
"""Size of one part, and the size above which an object is sent in parts."""
LARGEST_PUT = 5 * 2**30
"""Bytes that one request takes."""
CONNECTIONS = 16
ATTEMPTS = 4
"""How often a request is tried, and how often a download that breaks off is taken up again."""
CONNECT_SECONDS, TIMEOUT_SECONDS = 5, 30
DIGEST = "sha256"
"""Name of the object metadata that holds the hex digest of the whole object."""
UPLOADS = ("PutObject", "UploadPart")
"""Operations that buckets with a retention want a digest of the body with."""


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
        public_url: str | None = None,
        encryption: str = "",
        kms_key: str | None = None,
    ) -> None:
        """Nothing is asked of the service yet.

        Args:
            bucket: its name.
            prefix: before every key.
            endpoint_url: None is AWS.
            region: of the signatures.
            access_key: None, together with the secret one, takes boto3's own chain.
            secret_key: never shown.
            path_style: the bucket stands in the path.
            public_url: address in links; None is `endpoint_url`.
            encryption: what the service shall encrypt with; empty leaves it to the bucket.
            kms_key: key of `aws:kms`; None is the account's own.

        Raises:
            InvalidFieldValueError: the endpoint is no address.
            AuthMissingError: one of the two keys is set without the other.
        """
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        host = urlsplit(endpoint_url).netloc.rpartition("@")[2] if endpoint_url else "AWS"
        self._where = f"s3://{bucket} at {host}"
        self._facts: dict[str, str] = {}
        if encryption:
            self._facts["ServerSideEncryption"] = encryption
        if kms_key:
            self._facts["SSEKMSKeyId"] = kms_key
        config = Config(
            signature_version="s3v4",
            # the signature covers the sha256 of each body: any service checks it, also
            # those that do not know the newer checksum headers
            s3={
                "addressing_style": "path" if path_style else "auto",
                "payload_signing_enabled": True,
            },
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            max_pool_connections=CONNECTIONS,
        )
        keys: dict[str, Any] = {
            "aws_access_key_id": access_key.get_secret_value() if access_key else None,
            "aws_secret_access_key": secret_key.get_secret_value() if secret_key else None,
        }
        self._own_keys = access_key is not None
        with self._errors(""):
            self._session = boto3.Session(region_name=region)
            self.client: Any = self._session.client(
                "s3", endpoint_url=endpoint_url, config=config, **keys
            )
            """Of boto3."""
            self._links: Any = self.client
            if public_url is not None:
                self._links = self._session.client(
                    "s3", endpoint_url=public_url, config=config, **keys
                )
        for operation in UPLOADS:
            self.client.meta.events.register(f"before-call.s3.{operation}", _with_digest)

    def write(
        self, key: str, source: Path | bytes, media_type: str, sha256: str | None = None
    ) -> None:
        """See `Backend.write`; large files go up in parts, shown only once all are there."""
        from boto3.s3.transfer import TransferConfig

        name = self._name(key)
        config = TransferConfig(
            multipart_threshold=MULTIPART_BYTES,
            multipart_chunksize=MULTIPART_BYTES,
            use_threads=False,  # those of boto3 would keep a process from ending
        )
        where = source if isinstance(source, Path) else Path(key)
        with disk_errors(where), _opened(source) as file, self._errors(key):
            digest = hashlib.file_digest(file, DIGEST).hexdigest()
            if sha256 not in (None, digest):
                raise ChecksumMismatchError(
                    f"{key} has sha256 {digest}, expected {sha256}: the file changed while it "
                    "was stored",
                    "wait until the file is complete, then run the flow again",
                )
            file.seek(0)
            facts = {"ContentType": media_type, "Metadata": {DIGEST: digest}, **self._facts}
            self.client.upload_fileobj(file, self.bucket, name, ExtraArgs=facts, Config=config)

    def read(self, key: str) -> bytes:
        """See `Backend.read`."""
        sink = io.BytesIO()
        self._stream(key, sink)
        return sink.getvalue()

    def fetch(self, key: str, target: Path) -> Path:
        """See `Backend.fetch`; downloads beside `target`, then renames."""
        with disk_errors(target), half_made(target.parent) as half:
            with half.open("xb") as sink:
                self._stream(key, sink)
            half.replace(target)
        return target

    def exists(self, key: str) -> bool:
        """See `Backend.exists`."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        try:
            with self._errors(key):
                return self._length(self._name(key))
        except MissingFileError:
            return None

    def list(self, prefix: str) -> list[str]:
        """See `Backend.list`."""
        found = self._listed(self.prefix + checked_prefix(prefix))
        return sorted(each["Key"].removeprefix(self.prefix) for each in found)

    def delete(self, key: str) -> None:
        """See `Backend.delete`."""
        with self._errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def link(self, key: str, seconds: int, saved_as: str = "") -> str:
        """See `Backend.link`; presigned, so whoever holds it can read the object until it ends."""
        said = {"ResponseContentDisposition": saved_as} if saved_as else {}
        with self._errors(key):
            return self._links.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self._name(key), **said},
                ExpiresIn=seconds,
            )

    def foreign_link(self, key: str, seconds: int) -> str:
        """A presigned address of an object that others put there, whatever its key looks like."""
        with self._errors(key):
            return self._links.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self.prefix + key},
                ExpiresIn=seconds,
            )

    def names(self, prefix: str) -> Sequence[tuple[str, bool]]:
        """What lies right below a prefix that ends in a slash, and whether it is one itself.

        From here to `write_once` a name may have any characters.
        """
        top = self.prefix + prefix
        found = [each.get("Prefix") or each["Key"] for each in self._listed(top, Delimiter="/")]
        below = [name.removeprefix(top) for name in found if name != top]
        return [(name.rstrip("/"), name.endswith("/")) for name in below]

    def objects(self) -> Sequence[tuple[str, int, int]]:
        """Name, bytes and time of change of each object, in nanoseconds of whole seconds."""
        return [
            (each["Key"].removeprefix(self.prefix), each["Size"], _nanoseconds(each))
            for each in self._listed(self.prefix)
        ]

    def facts_of(self, name: str) -> tuple[int, int, str] | None:
        """Bytes, time of the last change, and sha256, empty where none stands beside the object."""
        try:
            with self._errors(name):
                head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)
        except MissingFileError:
            return None
        return head["ContentLength"], _nanoseconds(head), head["Metadata"].get(DIGEST, "")

    def _listed(self, prefix: str, **more: str) -> Iterator[Any]:
        """Objects below a whole prefix, and with a delimiter prefixes."""
        pages = self.client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, **more):
                yield from (*page.get("Contents", ()), *page.get("CommonPrefixes", ()))

    def fetch_named(self, name: str, target: Path) -> None:
        """Download an object, whatever its name looks like."""
        with disk_errors(target), target.open("xb") as sink:
            self._stream(name, sink, self.prefix + name)

    def delete_named(self, name: str) -> None:
        """Forget an object, whatever its name looks like."""
        with self._errors(name):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def write_once(self, name: str, source: Path, media_type: str, sha256: str) -> bool:
        """Keep a file under a name that nothing has; False where anything has it.

        The service itself keeps two writers apart, but for files beyond what one request takes.
        """
        from botocore.exceptions import ClientError

        facts = {"ContentType": media_type, "Metadata": {DIGEST: sha256}, **self._facts}
        target = {"Bucket": self.bucket, "Key": self.prefix + name}
        with disk_errors(source), source.open("rb") as file, self._errors(name):
            if source.stat().st_size > LARGEST_PUT:
                if self.facts_of(name) is not None:
                    return False
                self.client.upload_fileobj(file, *target.values(), ExtraArgs=facts)
                return True
            try:
                self.client.put_object(**target, Body=file, IfNoneMatch="*", **facts)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                    return False
                raise
        return True

    def link_ends(self, seconds: int) -> str:
        """See `Backend.link_ends`; a link that temporary keys have signed ends with them."""
        now = datetime.now(UTC)
        end = now + timedelta(seconds=seconds)
        found = None if self._own_keys else self._session.get_credentials()
        if found is None or found.get_frozen_credentials().token is None:
            return f"good until {end:%Y-%m-%d %H:%M} UTC"
        # botocore keeps it under no public name; keys from plain variables have none
        keys_end: datetime | None = getattr(found, "_expiry_time", None)
        if keys_end is None:
            return f"good until {end:%Y-%m-%d %H:%M} UTC, or until the temporary keys end"
        if keys_end < end:
            return f"good until {keys_end:%Y-%m-%d %H:%M} UTC, when the temporary keys end"
        return f"good until {end:%Y-%m-%d %H:%M} UTC"

    def _length(self, name: str) -> int:
        """Bytes of an object.

        A refused HEAD has no body that could say why, so the same is asked by GET.
        """
        from botocore.exceptions import ClientError

        try:
            head = self.client.head_object(Bucket=self.bucket, Key=name)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404 or not 300 <= status < 500:
                raise
            head = self.client.get_object(Bucket=self.bucket, Key=name)
            head["Body"].close()
        return int(head["ContentLength"])

    def _name(self, key: str) -> str:
        return self.prefix + checked_key(key)

    def _stream(self, key: str, sink: BinaryIO, named: str | None = None) -> None:
        """Download into `sink`; what breaks off is taken up where it stopped."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        name = self._name(key) if named is None else named
        seen, done, failures = hashlib.sha256(), 0, 0
        wanted: dict[str, str] = {}
        while True:
            with self._errors(key):
                answer = self.client.get_object(Bucket=self.bucket, Key=name, **wanted)
                expected = answer["Metadata"].get(DIGEST)
                try:
                    with closing(answer["Body"]) as body:  # its own `with` gives the raw stream
                        for chunk in body.iter_chunks(1 << 20):
                            sink.write(chunk)
                            seen.update(chunk)
                            done += len(chunk)
                    break
                except (HTTPClientError, IncompleteReadError):
                    failures += 1
                    if failures == ATTEMPTS:
                        raise
            wanted = {"IfMatch": answer["ETag"]} | ({"Range": f"bytes={done}-"} if done else {})
            time.sleep(0.1 * 2**failures)
        if expected is not None and seen.hexdigest() != expected:
            raise ChecksumMismatchError(
                f"{key} in {self._where} has sha256 {seen.hexdigest()}, not {expected}",
                f"delete {name} from the bucket, then run the flow again",
            )

    @contextmanager
    def _errors(self, key: str) -> Generator[None]:
        """Botocore's exceptions as ours; their texts never hold a secret key or a signature."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        try:
            yield
        except ClientError as error:
            raise self._translated(key, error.response) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AuthMissingError(
                f"no keys for {self._where}",
                "set both SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY",
            ) from error
        except Boto3Error as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError):
                raise self._translated(key, cause.response) from error
            raise self._unreachable(key, error) from error
        except (ParamValidationError, ValueError) as error:
            raise InvalidFieldValueError(
                f"{self._where} is no bucket that can be asked ({type(error).__name__})",
                "correct the bucket in SAFELIGHT_STORE, and SAFELIGHT_S3_ENDPOINT_URL",
            ) from error
        except (BotoCoreError, ConnectionError, TimeoutError) as error:
            raise self._unreachable(key, error) from error

    def _translated(self, key: str, response: Any) -> PipelineError:  # noqa: ANN401  (botocore's)
        return error_of(self._where, self.bucket, key, response)

    def _unreachable(self, key: str, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._where} did not answer for {key}: {type(error).__name__}",
            "check SAFELIGHT_S3_ENDPOINT_URL and that the service runs, then run the flow again",
        )


def _nanoseconds(known: Any) -> int:  # noqa: ANN401  (botocore's)
    return int(known["LastModified"].timestamp()) * 10**9  # a list may be finer than a HEAD


def _opened(source: Path | bytes) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _with_digest(params: dict[str, Any], **_: object) -> None:
    """Send the MD5 of the body, which buckets with a retention ask for; any service knows it."""
    body: bytes | BinaryIO = params["body"]
    seen = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        seen.update(body)
    else:
        start = body.tell()
        while chunk := body.read(1 << 20):
            seen.update(chunk)
        body.seek(start)
    params["headers"]["Content-MD5"] = b64encode(seen.digest()).decode()
