"""Small pictures of stored files: made once for each content and size, then kept in the store."""

import io
from pathlib import Path
from threading import BoundedSemaphore
from typing import Literal, get_args

from PIL import Image

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.images import decode_image
from safelight.media.previews import poster_strip
from safelight.pixels import Pixels
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Store, current_store

Side = Literal["128", "256", "512", "1024"]
"""The longer side, in pixels."""
ON_WALL: Side = "512"
"""Of those on pages."""
PREFIX = "cache/thumbnails/"
"""Of the store's keys: what lies below can be made again at any time."""
REVISION = "1"
"""Raised when they are made otherwise."""
QUALITY = 80
AT_ONCE = BoundedSemaphore(2)
"""Decoded pictures are large: so many are in memory at a time."""


def thumbnail_key(sha256: str, side: Side) -> str:
    """Where a thumbnail of a file lies."""
    return f"{PREFIX}{sha256[:2]}/{sha256}-{side}-{REVISION}.webp"


def forget_thumbnails(sha256: str, store: Store) -> None:
    """Delete what was made of a file."""
    for side in get_args(Side):
        store.backend.delete(thumbnail_key(sha256, side))


def thumbnail(ref: ArtifactRef, side: Side = ON_WALL, store: Store | None = None) -> bytes:
    """A WebP of a picture, or of the middle of a video; small files stay as small as they are.

    Raises:
        InvalidMediaError: it is neither.
        MissingFileError: it is no longer stored.
        ChecksumMismatchError: its stored bytes are damaged.
    """
    store = store or current_store()
    key = thumbnail_key(ref.sha256, side)
    try:
        return store.read_record(key)
    except MissingFileError:
        with AT_ONCE:
            made = _made(_pixels(ref, store), int(side))
    store.backend.write(key, made, "image/webp")
    return made


def _pixels(ref: ArtifactRef, store: Store) -> Pixels:
    if ref.kind == "image":
        return decode_image(store.read(ref))
    if ref.kind == "video":
        return poster_strip(store.fetch(ref), 1)
    raise InvalidMediaError(
        f"{ref.uri} is {ref.media_type}, which cannot be seen", "name a picture or a video"
    )


def _made(pixels: Pixels, side: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def picture_of(path: Path) -> bytes:
    """A WebP of a picture that lies outside the store.

    Raises:
        InvalidMediaError: it is none.
    """
    return _made(decode_image(path.read_bytes()), int(ON_WALL))


def shown_whole(ref: ArtifactRef, store: Store | None = None) -> bytes:
    """A PNG of a stored picture of any format, turned upright, at its full size.

    Raises:
        InvalidMediaError: it is no picture.
        MissingFileError: it is no longer stored.
    """
    if ref.kind != "image":
        raise InvalidMediaError(f"{ref.uri} is {ref.media_type}", "name a picture")
    out = io.BytesIO()
    Image.fromarray(decode_image((store or current_store()).read(ref))).save(
        out, "PNG", compress_level=1
    )
    return out.getvalue()
