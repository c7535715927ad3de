"""What of a container stands beside the picture: sound, subtitles, chapters, titles."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safelight.media.video.opening import codec_name

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer
    from av.container.core import Chapter
    from av.stream import Stream

Format = Literal["mp4", "matroska", "webm"]

MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Sound that players expect in MP4; anything else goes into MKV."""
WEBM_SOUND = frozenset({"opus", "vorbis"})
MP4_SUBTITLES, WEBM_SUBTITLES, MKV_SUBTITLES = (
    frozenset({"mov_text"}),
    frozenset({"webvtt"}),
    frozenset({"subrip", "srt", "ass", "ssa", "webvtt", "pgssub", "dvdsub", "text"}),
)
SUBTITLES = {"mp4": MP4_SUBTITLES, "webm": WEBM_SUBTITLES, "matroska": MKV_SUBTITLES}
UNCOMPRESSED = {"u8": "pcm_s16le", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le"}
"""By how a decoder gives its samples, what uncompressed sound that MKV does not hold becomes:
not one sample changes. 64-bit floats are what is left, as `pcm_f64le`."""
FOR_PLAYERS = "aac"
"""What sound that neither container holds becomes."""
TECHNICAL = frozenset(
    {
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "software",
        "duration",
        "handler_name",
        "vendor_id",
        "creation_tool",
        "timecode",
        "language",
        "alpha_mode",
    }
)
"""Metadata that is true of the source's file alone."""


@dataclass(frozen=True)
class Track:
    """A stream that goes into the result."""

    source: "Stream"
    encoder: str | None = None
    """Codec it is encoded anew with; None copies its packets."""


@dataclass(frozen=True)
class Surroundings:
    """What a result takes over from its source, apart from the picture."""

    container: Format = "mp4"
    tracks: tuple[Track, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    """Of the whole file: title, date, place, artist."""
    chapters: "tuple[Chapter, ...]" = ()
    picture: tuple[tuple[str, str], ...] = ()
    """Language and title of the picture's own track."""
    notes: tuple[str, ...] = ()
    """What is left out or changed, and why."""


ALONE = Surroundings()
"""Of a video made from nothing."""


def surroundings(
    container: "InputContainer", picture: "VideoStream", *, transparent: bool = False
) -> Surroundings:
    """Decide what is copied, what is encoded anew and what is left out.

    Args:
        container: the source.
        picture: its picture.
        transparent: whether the result keeps transparency, which MP4 does not hold.
    """
    notes: list[str] = []
    sound, lost = _sound(container)
    notes += lost
    subtitles = [s for s in container.streams if s.type == "subtitle" and codec_name(s)]
    form: Format = "webm" if transparent else "mp4"
    name, held = ("WebM", WEBM_SOUND) if transparent else ("MP4", MP4_SOUND)
    # MP4 holds the AAC that sound of other kinds becomes, WebM does not
    becomes = frozenset[str]() if transparent else _encoded(sound)
    foreign = sorted({codec_name(s) or "" for s in sound} - held - becomes)
    for_subtitles = {codec_name(s) or "" for s in subtitles} & MKV_SUBTITLES
    for_subtitles = sorted(for_subtitles - SUBTITLES[form])
    if foreign:
        form = "matroska"
        notes.append(
            f"sound is {', '.join(foreign)}, which {name} does not hold: the result is an MKV file"
        )
    elif for_subtitles:
        form = "matroska"
        notes.append(
            f"subtitles are {', '.join(for_subtitles)}, which {name} does not hold: the result is "
            "an MKV file"
        )
    tracks = list(_sound_tracks(sound, notes))
    for stream in subtitles:
        if codec_name(stream) in SUBTITLES[form]:
            tracks.append(Track(stream))
        else:
            notes.append(f"left out: {_named(stream)}, which the result's container does not hold")
    notes += _left_out(container, picture)
    return Surroundings(
        form,
        tuple(sorted(tracks, key=lambda track: track.source.index)),
        tuple(_metadata(container.metadata)),
        tuple(container.chapters()),
        tuple(kept_tags(picture.metadata).items()),
        tuple(notes),
    )


def kept_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Of a track: its language, title and what else people gave it."""
    kept = dict(_metadata(metadata))
    title = kept.get("title") or kept.pop("name", None)  # as MP4 calls it
    if title:
        # players of MP4 show the one or the other
        kept |= {"title": title, "handler_name": title}
    language = next((value for key, value in metadata.items() if key.lower() == "language"), "")
    return kept | {"language": language} if language and language != "und" else kept


def _metadata(metadata: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in metadata.items():
        lower = key.lower()
        # MKV counts its own streams in tags
        if lower not in TECHNICAL and not lower.startswith(("_statistics", "number_of_", "bps")):
            # MKV writes names in capitals; MP4 knows these in small letters
            yield (lower if key.isupper() else key), value


def _sound(container: "InputContainer") -> tuple[list["Stream"], list[str]]:
    known: list[Stream] = []
    notes: list[str] = []
    for stream in container.streams:
        if stream.type != "audio":
            continue
        if codec_name(stream) is None:
            notes.append(f"left out: {_named(stream)}, of a kind that no decoder here knows")
        else:
            known.append(stream)
    return known, notes


def _encoded(sound: "list[Stream]") -> set[str]:
    """Codecs that become AAC, so that the container need not hold them."""
    return {
        name
        for name in (codec_name(s) or "" for s in sound)
        if not _in_mkv(name) and not name.startswith("pcm_")
    }


def _sound_tracks(sound: "list[Stream]", notes: list[str]) -> Iterator[Track]:
    for stream in sound:
        name = codec_name(stream) or ""
        if name in MP4_SOUND or _in_mkv(name):
            yield Track(stream)
            continue
        encoder = FOR_PLAYERS
        if name.startswith("pcm_"):
            samples = stream.codec_context.format.name.removesuffix("p")  # pyright: ignore
            encoder = UNCOMPRESSED.get(samples, "pcm_f64le")
            notes.append(
                f"{_named(stream)}, which MKV does not hold: now {encoder}, not a sample changed"
            )
        else:
            notes.append(f"{_named(stream)}, which neither MP4 nor MKV holds: encoded as AAC")
        yield Track(stream, encoder)


def _in_mkv(name: str) -> bool:
    import io

    import av

    with av.open(io.BytesIO(), "w", format="matroska") as container:
        return name in container.supported_codecs


def _left_out(container: "InputContainer", picture: "VideoStream") -> Iterator[str]:
    from av.stream import Disposition

    for stream in container.streams:
        cover = bool(stream.disposition & Disposition.attached_pic)
        if stream.type == "video" and stream.index != picture.index:
            kind = "the cover picture" if cover else "a second picture track"
            yield f"left out: {kind} (stream {stream.index})"
        elif stream.type == "subtitle" and codec_name(stream) is None:
            yield f"left out: {_named(stream)}, of a kind that is not known here"
        elif stream.type == "attachment":
            name = stream.metadata.get("filename", "without a name")
            yield f"left out: an attachment ({name})"
        elif stream.type == "data" and not (container.chapters() and _is_chapters(stream)):
            yield f"left out: a data track ({_handler(stream)})"


def _is_chapters(stream: "Stream") -> bool:
    """MP4 keeps chapters in a text track as well."""
    return stream.name == "bin_data" and "Subtitle" in stream.metadata.get(
        "handler_name", "Subtitle"
    )


def _handler(stream: "Stream") -> str:
    return stream.metadata.get("handler_name", "").strip() or f"stream {stream.index}"


def _named(stream: "Stream") -> str:
    kinds = {"audio": "sound", "subtitle": "subtitles"}
    told = [codec_name(stream), *(kept_tags(stream.metadata).get(k) for k in ("language", "title"))]
    words = ", ".join(each for each in told if each)
    return f"{kinds.get(stream.type, stream.type)} of track {stream.index}" + (
        f" ({words})" if words else ""
    )
