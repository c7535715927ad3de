"""Thumbnails as answers: immutable to caches, and not sent again to who has them."""

from starlette.responses import Response

from safelight.gallery.thumbnails import REVISION, Side, thumbnail
from safelight.gateway.files import FOR_EVER, names_tag
from safelight.store.artifact import ArtifactRef


def thumbnail_answer(ref: ArtifactRef, side: Side, known_tags: str | None) -> Response:
    """A small WebP of a picture, or of the middle of a video.

    Args:
        ref: of the file.
        side: its longer side; smaller files stay as small as they are.
        known_tags: header If-None-Match.

    Raises:
        InvalidMediaError: it shows nothing, or is damaged.
        MissingFileError: it is gone.
    """
    tag = f'"{ref.sha256[:32]}-{side}-{REVISION}"'
    headers = {"ETag": tag, "Cache-Control": FOR_EVER, "Content-Security-Policy": "sandbox"}
    if known_tags is not None and names_tag(known_tags, tag):
        return Response(status_code=304, headers=headers)
    return Response(thumbnail(ref, side), headers=headers, media_type="image/webp")
