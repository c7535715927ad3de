"""Results as pictures that a program can look at, scaled down."""

import io
from uuid import UUID

from PIL import Image

from safelight.client.runs import manifest_of
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.media.images import decode_image
from safelight.media.video.stream import read_frames
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

LARGEST_SIDE, SMALLEST_SIDE = 1536, 64
"""Pixels; more costs a reader more than it shows."""
QUALITY = 85


def results_of(job_id: UUID) -> tuple[ArtifactRef, ...]:
    """What a job made for people.

    Raises:
        MissingFileError: it has no results yet, or left none.
    """
    manifest = manifest_of(job_id)
    if manifest is None or not manifest.shown:
        raise MissingFileError(f"job {job_id} has no results", "wait for it, or read its error")
    return manifest.shown


def small_picture(ref: ArtifactRef, side: int) -> bytes:
    """A result as a JPEG whose longer side has at most so many pixels; of a video its first frame.

    Raises:
        InvalidFieldValueError: the result is neither.
    """
    image = Image.fromarray(_pixels(ref))
    side = max(SMALLEST_SIDE, min(side, LARGEST_SIDE))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _pixels(ref: ArtifactRef) -> Pixels:
    store = current_store()
    if ref.kind == "image":
        return decode_image(store.read(ref))
    if ref.kind == "video":
        return next(iter(read_frames(store.fetch(ref))))
    raise InvalidFieldValueError(
        f"the result is {ref.media_type}, expected a picture or a video", "choose another number"
    )
