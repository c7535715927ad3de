"""Files of jobs and files for jobs: what the store gives out, and what it takes in."""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from uuid import UUID

import anyio
from anyio.to_thread import run_sync
from pydantic import BaseModel, ConfigDict, JsonValue
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from safelight.client.runs import manifest_of
from safelight.errors import ForbiddenPathError, InvalidFieldValueError, MissingFileError
from safelight.exports.facts import Result, run_results, stage_results
from safelight.exports.placing import saved_as
from safelight.exports.template import Template, parse, result_template
from safelight.gateway.problems import BeyondEndError, ContentTypeError, UploadDamagedError
from safelight.gateway.workflows import contract_of
from safelight.provenance.manifest import Manifest
from safelight.store.artifact import ArtifactRef, MediaKind
from safelight.store.disk import disk_errors
from safelight.store.inputs import keep_media
from safelight.store.store import current_store, key_of

ACCEPTED = ("image/", "video/", "audio/")
BINARY = "application/octet-stream"
MEDIA: tuple[MediaKind, ...] = ("image", "video", "audio")
FOR_EVER = "private, max-age=31536000, immutable"
"""How long what is named by its content may be kept."""
_ONE = r"(\d{1,18}-\d{0,18}|-\d{1,18})"
RANGE = re.compile(rf"bytes=\s*{_ONE}(\s*,\s*{_ONE}){{0,15}}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Stored(_Frozen):
    """A file in the store."""

    id: str
    """sha256 of its bytes."""
    uri: str
    """`store:` link: parameters of jobs that take a file take this."""
    media_type: str
    """MIME type."""
    size_bytes: int
    """Bytes."""
    width: int | None
    """Pixels."""
    height: int | None
    """Pixels."""
    frames: int | None
    """Of videos and animated pictures."""
    fps: float | None
    """Frames a second."""
    metadata: dict[str, JsonValue]
    """How it was made, or what of it was left aside."""


class Artifact(Stored):
    """A file that a job made."""

    role: Literal["result", "stage"]
    """Whether it is a result of the job, or what a later stage read."""
    stage: str | None
    """Stage that made it."""
    url: str
    """Where it can be downloaded."""


class Artifacts(_Frozen):
    """All files that a job made so far."""

    job_id: UUID
    """Of the job."""
    total_artifacts: int
    """How many there are."""
    artifacts: list[Artifact]
    """Results first, in the order of the workflow; then what stages made, in theirs."""


def artifacts_of(job_id: UUID) -> Artifacts:
    """What a job made; nothing where it has not begun."""
    manifest = manifest_of(job_id)
    found = [] if manifest is None else _listed(job_id, manifest)
    return Artifacts(job_id=job_id, total_artifacts=len(found), artifacts=found)


def _listed(job_id: UUID, manifest: Manifest) -> list[Artifact]:
    stages = {ref.sha256: entry.name for entry in manifest.stages for ref in entry.results}
    results = {ref.sha256 for ref in manifest.results}
    refs = {ref.sha256: ref for ref in (*manifest.results, *manifest.artifacts)}
    return [
        Artifact.model_validate(
            {
                **_facts(ref),
                "role": "result" if sha256 in results else "stage",
                "stage": stages.get(sha256),
                "url": f"/api/jobs/{job_id}/artifacts/{sha256}",
            }
        )
        for sha256, ref in refs.items()
    ]


def _facts(ref: ArtifactRef) -> dict[str, JsonValue]:
    return {
        "id": ref.sha256,
        "uri": ref.uri,
        "media_type": ref.media_type,
        "size_bytes": ref.bytes,
        "width": ref.width,
        "height": ref.height,
        "frames": ref.frames,
        "fps": ref.fps,
        "metadata": ref.metadata,
    }


def result_of(job_id: UUID, sha256: str) -> tuple[Result, Manifest]:
    """A file that a job made.

    Raises:
        MissingFileError: the job's manifest names no such file.
        ForbiddenPathError: the manifest names a key that is none of an artifact.
    """
    manifest = manifest_of(job_id)
    found = [] if manifest is None else [*run_results(manifest), *stages_of(manifest)]
    result = next((each for each in found if each.ref.sha256 == sha256), None)
    if manifest is None or result is None:
        raise MissingFileError(
            f"job {job_id} has no artifact {sha256}", f"take an id of /api/jobs/{job_id}/artifacts"
        )
    _require_artifact(result.ref)
    return result, manifest


def download(
    job_id: UUID,
    sha256: str,
    names: str | None,
    wanted_range: str | None,
    known_tags: str | None,
) -> Response:
    """The bytes of a file that a job made, checked against their sha256 before any is sent.

    Args:
        job_id: of the job.
        sha256: of the file.
        names: template of what it is to be saved as; None is that of the settings.
        wanted_range: header Range, which the answer reads itself.
        known_tags: header If-None-Match.

    Raises:
        MissingFileError: the job's manifest names no such file, or it is no longer there.
        ForbiddenPathError: the manifest names a key that is none of an artifact.
        ChecksumMismatchError: the stored bytes are damaged.
        InvalidFieldValueError: the range is none.
        PipelineError: `names` is no template.
    """
    result, manifest = result_of(job_id, sha256)
    ref = result.ref
    name = saved_as(result, template_of(names, manifest.flow))
    if wanted_range is not None and not RANGE.fullmatch(wanted_range.strip()):
        raise InvalidFieldValueError(
            f"Range is {wanted_range[:80]!r}, expected bytes=FIRST-LAST", "correct the header Range"
        )
    tag = f'"{ref.sha256}"'
    headers = {"ETag": tag, "Cache-Control": FOR_EVER, "Content-Security-Policy": "sandbox"}
    if known_tags is not None and names_tag(known_tags, tag):
        return Response(status_code=304, headers=headers)
    path = current_store().fetch(ref)
    return RangedFile(
        path,
        headers=headers,
        media_type=ref.media_type,
        filename=name,
        content_disposition_type="inline",
    )


class RangedFile(FileResponse):
    """A file of the store, of which a caller may want parts; what cannot be given is refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or the parts that are wanted.

        Raises:
            BeyondEndError: a part begins where the file has ended.
            InvalidFieldValueError: a part ends before it begins.
        """
        asked = Headers(scope=scope)
        wanted, only_of = asked.get("range"), asked.get("if-range")
        if wanted is not None and only_of in (None, self.headers["etag"]):
            size = (await anyio.Path(self.path).stat()).st_size
            for part in wanted.strip().removeprefix("bytes=").split(","):
                bounds(part, size)
        await super().__call__(scope, receive, send)


def bounds(part: str, size: int) -> tuple[int, int]:
    """The first byte of a range and the one after its last.

    Args:
        part: FIRST-LAST, FIRST- or -COUNT, in digits.
        size: bytes of the file.

    Raises:
        BeyondEndError: it begins where the file has ended.
        InvalidFieldValueError: it ends before it begins.
    """
    first, _, last = part.strip().partition("-")
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        raise BeyondEndError(
            f"Range is {part.strip()}, and the file has {size} bytes",
            "begin within the file",
            size,
        )
    if stop <= start:
        raise InvalidFieldValueError(
            f"Range is {part.strip()}, which ends before it begins", "correct the header Range"
        )
    return start, stop


def stages_of(manifest: Manifest) -> list[Result]:
    """What is no result of a run."""
    return [result for _, result in stage_results(manifest)]


def template_of(names: str | None, flow: str) -> Template:
    """The template of a caller, else of the settings.

    Raises:
        PipelineError: it is none.
    """
    parameters = contract_of(flow).described
    return result_template(parameters) if names is None else parse(names, "names", parameters)


def _require_artifact(ref: ArtifactRef) -> None:
    """A manifest is a file in the store, which may have been changed: it leads nowhere else."""
    expected = rf"(outputs|uploads)/{ref.sha256[:2]}/{ref.sha256}\.[a-z0-9]+"
    if not re.fullmatch(expected, key_of(ref)):
        raise ForbiddenPathError(
            f"the manifest names {ref.uri[:200]!r}, which is no artifact", "look at the manifest"
        )


def names_tag(listed: str, tag: str) -> bool:
    """Whether a header If-None-Match names a tag."""
    tags = [each.strip().removeprefix("W/") for each in listed.split(",")]
    return "*" in tags or tag in tags


async def keep_upload(chunks: AsyncIterator[bytes], sha256: str | None) -> Stored:
    """Keep a file that a caller sends, after a look into it.

    Args:
        chunks: its bytes as they come.
        sha256: what they should have; None where the caller does not say.

    Raises:
        UploadDamagedError: other bytes came than `sha256` says.
        InvalidMediaError: they are no picture, video or sound, or too large a one.
        DiskFullError: no room is left.
    """
    with current_store().workspace() as folder:
        path = Path(folder) / "upload"
        found = await arrived(chunks, path)
        if sha256 is not None and found != sha256:
            raise UploadDamagedError(
                f"the file has sha256 {found}, expected {sha256}", "send it again"
            )
        return await run_sync(kept_file, path)


def require_file(content_type: str, accepted: tuple[str, ...] = ACCEPTED) -> None:
    """Refuse a body that is not the file itself; a form of another site cannot say that it is.

    Args:
        content_type: as the header says it.
        accepted: beginnings of types that may be said, beside octets.

    Raises:
        ContentTypeError: it is something else.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind != BINARY and not kind.startswith(accepted):
        media = "that of a picture, video or sound, or " if accepted else ""
        raise ContentTypeError(
            f"the content type is {kind[:80] or 'not given'}, expected {media}{BINARY}",
            f"send the file itself with the header Content-Type: {BINARY}",
        )


async def arrived(chunks: AsyncIterator[bytes], path: Path) -> str:
    """Write what a caller sends to a new file; the sha256 of it.

    Raises:
        DiskFullError: no room is left.
    """
    digest = hashlib.sha256()
    with disk_errors(path):
        async with await anyio.open_file(path, "xb") as file:
            async for chunk in chunks:
                digest.update(chunk)
                await file.write(chunk)
    return digest.hexdigest()


def kept_file(path: Path) -> Stored:
    """Look into a file, and keep it.

    Raises:
        InvalidMediaError: it is no picture, video or sound, or too large a one.
        DiskFullError: no room is left.
    """
    ref = keep_media(path, MEDIA)
    current_store().settle()
    return Stored.model_validate(_facts(ref))
