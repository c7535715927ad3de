"""Jobs whose caller waits for their pictures, as the interfaces of other programs have it."""

import base64
import binascii
import re
from collections.abc import Mapping
from io import BytesIO

from anyio.to_thread import run_sync
from PIL import Image
from pydantic import JsonValue

from safelight.client.runs import manifest_of
from safelight.errors import (
    ContractMismatchError,
    InvalidFieldValueError,
    PipelineError,
    UnknownError,
)
from safelight.gateway.events import Told
from safelight.gateway.jobs import Job, Status, find_job
from safelight.gateway.problems import StateConflictError
from safelight.gateway.shared import Shared
from safelight.gateway.steering import Submission
from safelight.media.images import decode_still
from safelight.pixels import Pixels
from safelight.provenance.manifest import Failure
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,")


class JobFailedError(PipelineError):
    """The job that a caller waited for failed; it has the code that the job has."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.problem, failure.remedy)
        self.code = failure.code


async def ended(
    shared: Shared, workflow: str, parameters: Mapping[str, JsonValue], key: str | None = None
) -> Job:
    """Submit a job and wait for its end; how it stands then.

    Raises:
        PipelineError: it was refused.
    """
    wanted = Submission(workflow=workflow, parameters=dict(parameters))
    job = await run_sync(shared.submitter.submit, wanted, key)
    async for _ in shared.following.news(job.id, Told(), ""):
        pass
    return await run_sync(find_job, shared.client, shared.flows, job.id)


async def finished(
    shared: Shared, workflow: str, parameters: Mapping[str, JsonValue], key: str | None = None
) -> tuple[Job, list[ArtifactRef]]:
    """Submit a job and wait for its end; what it made, in order.

    Raises:
        JobFailedError: it failed.
        StateConflictError: it was cancelled.
        PipelineError: it was refused.
    """
    job = await ended(shared, workflow, parameters, key)
    return job, await run_sync(results_of, job)


def results_of(job: Job) -> list[ArtifactRef]:
    """What a job that has ended made, in order.

    Raises:
        JobFailedError: it failed.
        StateConflictError: it was cancelled.
    """
    if job.status is Status.CANCELLED:
        raise StateConflictError(f"job {job.id} was cancelled", "ask again", job.status.value)
    if job.status is not Status.SUCCEEDED:
        raise JobFailedError(
            job.error
            or Failure(code=UnknownError.code, problem=job.message, remedy=f"read job {job.id}")
        )
    manifest = manifest_of(job.id)
    if manifest is None:
        raise UnknownError(
            f"job {job.id} ended without a manifest", "give gateway and workers one store"
        )
    return list(manifest.results)


def refuse_others(
    given: Mapping[str, object],
    nothing: Mapping[str, tuple[object, ...]],
    free: tuple[str, ...] = (),
) -> None:
    """Refuse fields of a foreign interface that ask for what is not done here.

    Args:
        given: those that nothing here reads.
        nothing: the values at which a known one asks for nothing; null always is one.
        free: names of those that may have any value.

    Raises:
        ContractMismatchError: one has another value, or is not known.
    """
    for name, value in given.items():
        if value is not None and name not in free and value not in nothing.get(name, ()):
            raise not_done(name, value)


def not_done(name: str, value: object) -> ContractMismatchError:
    """The refusal of a field that would change the picture and that nothing here does."""
    return ContractMismatchError(
        f"{name} is {str(value)[:80]!r}, which nothing here does",
        f"leave {name} out, or use a preset or a pipeline",
    )


def pixels_in(text: str, field: str) -> Pixels:
    """A picture that came as base64, with or without the head of a data URL.

    Args:
        text: as it came.
        field: what to call it in errors.

    Returns:
        (H, W, 3 or 4) uint8.

    Raises:
        InvalidFieldValueError: it is no base64.
        InvalidMediaError: it is no picture.
    """
    return decode_still(bytes_in(text, field)).pixels


def bytes_in(text: str, field: str) -> bytes:
    """The bytes of a file that came as base64, with or without the head of a data URL.

    Raises:
        InvalidFieldValueError: it is no base64.
    """
    head = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[head.end() if head else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidFieldValueError(
            f"{field} is {text[:40]!a}, expected the bytes of a picture in base64",
            f"encode {field} in base64",
        ) from error


def keep_pixels(pixels: Pixels) -> str:
    """Keep a picture for a job to read; its link."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    height, width = pixels.shape[:2]
    ref = current_store().put(
        out.getvalue(), "image/png", width=width, height=height, folder="uploads"
    )
    current_store().settle()
    return ref.uri


def as_base64(ref: ArtifactRef) -> str:
    """The bytes of a result, checked against their sha256."""
    return base64.b64encode(current_store().fetch(ref).read_bytes()).decode()
