"""Looking into sound files."""

from pathlib import Path

from safelight.confined.transport import Array
from safelight.errors import InvalidMediaError
from safelight.media.video.mp4_index import require_few_samples

MEDIA_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "mov,mp4,m4a,3gp,3g2,mj2": "audio/mp4",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}
"""ffmpeg's names of the sound containers that are taken."""


def probe_sound(path: Path) -> str:
    """The media type of a sound file.

    Raises:
        InvalidMediaError: not WAV, MP3, M4A, FLAC or Ogg, no sound in it, or a video.
    """
    import av
    import av.error
    from av.stream import Disposition

    # a list, because other formats open files that their text names
    only = {"format_whitelist": ",".join(MEDIA_TYPES), "protocol_whitelist": "file"}
    require_few_samples(path)
    try:
        with av.open(str(path), options=only, metadata_errors="replace") as container:
            sound, cover = len(container.streams.audio), Disposition.attached_pic
            video = sum(not each.disposition & cover for each in container.streams.video)
            if sound and not video:
                return MEDIA_TYPES[container.format.name]
            found = f"{sound} sound and {video} video tracks"
    # PyAV passes what damaged headers hold to Python, as for videos
    except (
        *(av.error.FFmpegError, ArithmeticError, AttributeError),
        *(LookupError, RuntimeError, ValueError),
    ) as error:
        found = f"nothing that can be decoded ({error})"
    raise InvalidMediaError(
        f"{path.name} holds {found}, expected WAV, MP3, M4A, FLAC or Ogg sound alone",
        "convert the sound to WAV",
    )


def sound_type(path: str) -> tuple[str, Array | None]:
    """`probe_sound` for the confined process."""
    return probe_sound(Path(path)), None
