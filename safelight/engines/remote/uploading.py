"""Files on their way to a provider: to an address that it names, or as text inside a request."""

import base64
from collections.abc import Iterator
from pathlib import Path

from safelight.engines.remote.asking import Provider
from safelight.engines.remote.fetching import Source, outside_alone
from safelight.engines.remote.patience import patiently
from safelight.errors import DownloadFailedError, EngineOfflineError, InvalidMediaError
from safelight.pixels import Pixels
from safelight.provenance.png import png_bytes

PIECE = 2**20
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
SOUND_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".m4a": "audio/mp4"}


def png_of(image: Pixels) -> bytes:
    """(H, W, 3) or (H, W) uint8 as a file."""
    return png_bytes(image, ())


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    """A file as an address."""
    return f"data:{media_type};base64,{plain_text(content)}"


def plain_text(content: bytes) -> str:
    """A file as base64."""
    return base64.b64encode(content).decode()


def media_type_of(path: Path) -> str:
    """MIME type by a file's ending; the store's files have the right one."""
    return {**VIDEO_TYPES, **SOUND_TYPES}.get(path.suffix.lower(), "application/octet-stream")


def put_file(
    provider: Provider, source: Source, url: str, content: bytes | Path, media_type: str
) -> None:
    """Send a file to the address that a provider names for it; no key goes there.

    Raises:
        ForbiddenPathError: it leads into a private network.
        PipelineError: it does not get there.
    """
    outside_alone(url, source, f"the address that {source.provider} names for a file")
    size = len(content) if isinstance(content, bytes) else content.stat().st_size

    def sent() -> None:
        answer = provider.ask(
            "PUT",
            url,
            {"Content-Type": media_type, "Content-Length": str(size)},
            content=content if isinstance(content, bytes) else _pieces(content),
        )
        if answer.status >= 500 or answer.status in (408, 429):
            raise EngineOfflineError(
                f"{source.provider} takes no file now ({answer.status})", "run it again later"
            )
        if not answer.good:
            raise DownloadFailedError(
                f"{source.provider} does not take a file ({answer.status})", "run it again"
            )

    patiently(sent)


def require_size(size: int, most: int, what: str, title: str) -> None:
    """Refuse a file that a provider does not take.

    Raises:
        InvalidMediaError: it is too large.
    """
    if size > most:
        raise InvalidMediaError(
            f"{what} has {size / 2**20:.1f} MiB, {title} takes at most {most // 2**20}",
            f"give {what} smaller or shorter",
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
