"""Thumbnails: made once of each file and size, kept by the content that they show."""

import hashlib
import io
from threading import BoundedSemaphore
from typing import Literal

from PIL import Image
from starlette.responses import Response

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.gateway.files import FOR_EVER, names_tag
from safelight.media.images import decode_still
from safelight.media.previews import poster_strip
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store

Side = Literal["128", "256", "512", "1024"]
"""The longer side, in pixels."""
KEPT = "cache/thumbnails/"
REVISION = "1"
"""Raised when they are made otherwise."""
QUALITY = 80
AT_ONCE = BoundedSemaphore(2)
"""Decoded pictures are large: so many are in memory at a time."""


def thumbnail(ref: ArtifactRef, side: Side, known_tags: str | None) -> Response:
    """A small WebP of a picture, or of the middle frame of a video.

    Args:
        ref: of the file.
        side: its longer side; smaller files stay as small as they are.
        known_tags: header If-None-Match.

    Raises:
        MissingFileError: the file shows nothing, or is gone.
        InvalidMediaError: it is damaged.
    """
    tag = f'"{ref.sha256[:32]}-{side}-{REVISION}"'
    headers = {"ETag": tag, "Cache-Control": FOR_EVER, "Content-Security-Policy": "sandbox"}
    if known_tags is not None and names_tag(known_tags, tag):
        return Response(status_code=304, headers=headers)
    return Response(thumbnail_bytes(ref, side), headers=headers, media_type="image/webp")


def thumbnail_bytes(ref: ArtifactRef, side: Side) -> bytes:
    """The same as bytes.

    Raises:
        PipelineError: as `thumbnail`.
    """
    if ref.kind not in ("image", "video"):
        raise MissingFileError(
            f"{ref.sha256[:12]} is {ref.media_type}, which shows nothing", "download the file"
        )
    key = f"{KEPT}{ref.sha256[:2]}/{ref.sha256}-{side}-{REVISION}.webp"
    backend = current_store().backend
    if backend.exists(key):
        try:
            return backend.read(key)
        except MissingFileError:  # it was swept a moment ago
            pass
    with AT_ONCE:
        made = _made(ref, int(side))
    backend.write(key, made, "image/webp", hashlib.sha256(made).hexdigest())
    return made


def _made(ref: ArtifactRef, side: int) -> bytes:
    image = Image.fromarray(_pixels(ref))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def _pixels(ref: ArtifactRef) -> Pixels:
    store = current_store()
    if ref.kind == "video":
        return poster_strip(store.fetch(ref), 1)
    pixels = decode_still(store.read(ref)).pixels
    if pixels.ndim != 3:
        raise InvalidMediaError(f"{ref.sha256[:12]} is no picture", "look at the file")
    return pixels
