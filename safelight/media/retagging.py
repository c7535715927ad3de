"""Video and sound copied packet by packet, with more said about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.errors import InvalidMediaError
from safelight.media.sound import MEDIA_TYPES
from safelight.media.video.encoding import OPTIONS
from safelight.media.video.opening import CONTAINERS, media_errors, require_file
from safelight.media.video.tracks import TECHNICAL
from safelight.progress import note

if TYPE_CHECKING:
    from av.container import InputContainer

WRITERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "mp4",
    "matroska,webm": "matroska",
    "flac": "flac",
    "ogg": "ogg",
    "mp3": "mp3",
    "wav": "wav",
}
"""FFmpeg's names of what is read, to those of what is written."""
COPIED = ("video", "audio", "subtitle")


def retagged(source: Path, target: Path, tags: Mapping[str, str]) -> None:
    """Copy a file of video or sound, its packets as they are, with `tags` beside its own.

    Args:
        source: what is copied.
        target: the file to make; `.webm` at its end keeps a WebM one.
        tags: container metadata; they win over what the source says under the same names.

    Raises:
        InvalidMediaError: it cannot be read, or not be written anew.
        MissingFileError: it is not there.
    """
    import av

    require_file(source)
    only = ",".join(dict.fromkeys([*CONTAINERS, *MEDIA_TYPES]))
    whitelists = {"format_whitelist": only, "protocol_whitelist": "file"}
    with (
        media_errors(source),
        av.open(str(source), options=whitelists, metadata_errors="replace") as read,
    ):
        written = WRITERS.get(read.format.name)
        if written is None:
            raise InvalidMediaError(
                f"{source.name} is a file of {read.format.name}, which is not written here",
                "save MP4, WebM, MKV, FLAC, MP3, WAV or Ogg",
            )
        if written == "matroska" and target.suffix == ".webm":
            written = "webm"
        options = OPTIONS.get(written, {"fflags": "+bitexact"})
        with av.open(str(target), "w", format=written, options=options) as made:
            own = {
                name.lower(): text
                for name, text in read.metadata.items()
                if name.lower() not in TECHNICAL
            }
            _copy(read, made, own | dict(tags))


def _copy(read: "InputContainer", made: Any, tags: Mapping[str, str]) -> None:  # noqa: ANN401
    streams: dict[int, Any] = {}
    for each in read.streams:
        if each.type not in COPIED:
            note(f"left aside of the file: a track of {each.type or 'unknown kind'}")
            continue
        streams[each.index] = copy = made.add_stream_from_template(each)
        copy.metadata.update(each.metadata)
        if made.format.name == "ogg":  # its comments belong to a track
            copy.metadata.update(tags)
    made.metadata.update(tags)
    for packet in read.demux([each for each in read.streams if each.index in streams]):
        if packet.dts is None:
            continue
        packet.stream = streams[packet.stream.index]
        made.mux(packet)
