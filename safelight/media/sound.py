"""Looking into sound files."""

from pathlib import Path

from safelight.errors import InvalidMediaError

MEDIA_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg", "mov,mp4,m4a,3gp,3g2,mj2": "audio/mp4"}
"""ffmpeg's names of the sound containers that are taken."""


def probe_sound(path: Path) -> str:
    """The media type of a sound file.

    Raises:
        InvalidMediaError: not WAV, MP3 or M4A, or no sound in it.
    """
    import av
    import av.error

    try:
        with av.open(str(path)) as container:
            media_type = MEDIA_TYPES.get(container.format.name)
            if media_type is not None and container.streams.audio:
                return media_type
            found = f"{container.format.name} with {len(container.streams.audio)} sound tracks"
    except av.error.FFmpegError as error:
        found = f"nothing that can be decoded ({error})"
    raise InvalidMediaError(
        f"{path.name} holds {found}, expected WAV, MP3 or M4A sound", "convert the sound to WAV"
    )
