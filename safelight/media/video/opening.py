"""Opening foreign video files: which containers are read, and errors told by file."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.errors import InvalidMediaError, MissingFileError
from safelight.media.video.mp4_index import require_few_samples

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

MP4, MKV, WEBM, MXF = "video/mp4", "video/x-matroska", "video/webm", "video/mxf"
CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2": MP4, "matroska,webm": MKV, "mxf": MXF}
"""FFmpeg's names of the containers that are read. A list, because others (HLS, concat) open files
that their text names."""


@contextmanager
def opened(path: Path) -> "Generator[tuple[InputContainer, VideoStream]]":
    """A container and its first video stream that is no cover picture.

    Raises:
        MissingFileError: there is no such file.
        InvalidMediaError: not MP4, MOV, MKV, WebM or MXF, or no video in it.
    """
    import av
    from av.stream import Disposition

    require_file(path)
    require_few_samples(path)
    with media_errors(path):
        container = av.open(
            str(path),
            options={
                "format_whitelist": ",".join(CONTAINERS),
                "protocol_whitelist": "file",
            },
            metadata_errors="replace",  # a title in another encoding is no reason to refuse
        )
    with container:
        cover = Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            raise InvalidMediaError(
                f"{path.name} holds no video stream, expected one", "give a file with a picture"
            )
        stream = streams[0]
        if codec_name(stream) is None:
            raise InvalidMediaError(
                f"the video in {path.name} is of a kind that no decoder here knows "
                f"({_printable(stream)}), expected one as H.264, HEVC, VP9, AV1 or ProRes",
                "export the video again as H.264 in MP4",
            )
        stream.thread_type = "AUTO"  # pyright: ignore[reportAttributeAccessIssue]
        yield container, stream


def require_file(path: Path) -> None:
    """Raises MissingFileError where there is no such file."""
    if not path.is_file():
        raise MissingFileError(f"no file at {path}", "check the path")


def codec_name(stream: object) -> str | None:
    """FFmpeg's name of a stream's codec; None where it has no decoder for it."""
    # streams of unknown codecs have no context, whatever the types say
    context = getattr(stream, "codec_context", None)
    return None if context is None else context.name


def _printable(stream: "VideoStream") -> str:
    tag = str(getattr(stream, "codec_tag", "") or "").strip("\0 ")
    return tag if tag and tag.isprintable() else "no name"


@contextmanager
def media_errors(path: Path) -> Generator[None]:
    """Name the file where a library cannot read it.

    Raises:
        InvalidMediaError: in place of what the library raised.
    """
    import av.error

    try:
        yield
    except av.error.FFmpegError as error:
        raise _unreadable(path, error.strerror or type(error).__name__) from error
    # PyAV passes what damaged headers hold to Python: numbers out of range, names it has not
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, ValueError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: Path, found: str) -> InvalidMediaError:
    return InvalidMediaError(
        f"{path.name} ({path.stat().st_size} bytes) cannot be read as a video: {found}; expected "
        "MP4, MOV, MKV, WebM or MXF",
        "export the video again as MP4",
    )


def no_frames(path: Path) -> InvalidMediaError:
    """Says that nothing is shown."""
    return InvalidMediaError(
        f"{path.name} holds 0 video frames, expected at least 1", "export the video again"
    )


def breaks_off(path: Path, found: str) -> InvalidMediaError:
    """Says that a part is missing."""
    return InvalidMediaError(f"{path.name} breaks off: {found}", "export or upload it again")
