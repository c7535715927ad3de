"""From references to pixels and back: what every stage does first and last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.marking.deciding import PICTURES, SIGNED, Source, to_be_signed
from safelight.media.animation import frames_of, timing_of
from safelight.media.images import decode_still, is_stored_grey
from safelight.media.layers import (
    covered,
    is_grey,
    joined,
    on_white,
    only_grey,
    split,
    without_colour,
)
from safelight.media.video.stream import probe
from safelight.params import Params
from safelight.pixels import Pixels
from safelight.progress import note, part
from safelight.provenance.carried import NOTHING, Carried, carried_from
from safelight.provenance.embed import LOSSLESS, animation_bytes, image_bytes, read_record
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef
from safelight.store.disk import half_made
from safelight.store.store import current_store
from tasks.base.calling import current_call
from tasks.base.unfolded import unfolded_in


@dataclass(frozen=True)
class Layers:
    """A stored picture for stages that keep what belongs to it."""

    source: ArtifactRef
    """Where it comes from."""
    colours: Pixels
    """(H, W, 3) uint8 sRGB."""
    alpha: Pixels | None
    """(H, W) uint8; None where all is opaque."""
    grey: bool
    """Whether it has no colour."""

    def joined(self, made: Pixels) -> Pixels:
        """What a stage made of the colours, of any size, with the transparency; grey stays grey."""
        return joined(without_colour(made) if self.grey else made, self.alpha)


def load_image(picture: ArtifactRef) -> Pixels:
    """(H, W, 3) uint8 sRGB, read-only; from memory when an earlier stage of this process made it.

    What is transparent shows white, and a note says so.

    Raises:
        InvalidMediaError: the artifact is not a picture that can be decoded.
    """
    pixels = load_pixels(picture)
    if pixels.shape[2] == 4:
        note("the picture is transparent in parts: laid on white")
    return on_white(pixels)


def load_layers(picture: ArtifactRef) -> Layers:
    """The same for stages that keep transparency and greyness; pass it to `keep_image`."""
    colours, alpha = split(load_pixels(picture))
    return Layers(picture, colours, alpha, is_grey(colours))


def load_pixels(picture: ArtifactRef) -> Pixels:
    """(H, W, 3) uint8 sRGB, or (H, W, 4) where some of it is transparent; read-only.

    What was left aside when the file was first looked into is noted.
    """
    store = current_store()
    _note_left_aside(picture)
    if is_animated(picture):
        note(f"left aside of the source: all but the first of {picture.frames} frames")
    pixels = store.remembered(picture)
    if pixels is None:
        pixels = decode_still(store.read(picture)).pixels
        store.remember(picture, pixels)
    return pixels


def is_animated(picture: ArtifactRef) -> bool:
    """Whether a stored picture has several frames that follow one another."""
    return picture.kind == "image" and (picture.frames or 1) > 1


def colours_of(picture: ArtifactRef) -> Iterator[Pixels]:
    """(H, W, 3) uint8 sRGB of each frame of a stored picture, of one in a still."""
    if not is_animated(picture):
        yield split(load_pixels(picture))[0]
        return
    for frame in frames_of(current_store().read(picture)):
        yield split(frame)[0]


def record_of(params: Params, sources: Sequence[ArtifactRef]) -> FileRecord:
    """What a file of the running stage will say about itself.

    Pass it to `keep_image` or a video encoder's tags.
    """
    call = current_call()
    identity = call.identity
    store = current_store()
    history: dict[str, FileRecord] = {}  # branches of one origin bring it once
    for source in sources:
        if source.kind == "video":
            _note_left_aside(source)
        earlier = read_record(store.fetch(source))
        if earlier is not None:
            for each in (*earlier.history, earlier.model_copy(update={"history": ()})):
                history.setdefault(each.model_dump_json(), each)
    return FileRecord(
        stage=call.declared.name,
        parameters=params.model_dump(mode="json"),
        sources=tuple(source.sha256 for source in sources),
        origin=call.declared.origin,
        engine_id=identity.engine_id,
        engine_version=identity.version,
        weights=identity.weights,
        unfolded=unfolded_in(params),
        history=tuple(history.values()),
    )


def keep_image(
    pixels: Pixels,
    record: FileRecord,
    media_type: str = "image/png",
    like: Layers | None = None,
) -> ArtifactRef:
    """Store (H, W, 3) uint8 sRGB pixels with their record inside the file.

    Args:
        pixels: what a stage made.
        record: how.
        media_type: PNG, JPEG or WebP.
        like: the picture they were made of: its transparency, greyness and metadata are kept.
    """
    carried = NOTHING
    if like is not None:
        pixels = like.joined(pixels)
        carried = _carried(like.source)
    height, width = pixels.shape[:2]
    grey = like is not None and like.grey and is_stored_grey(current_store().read(like.source))
    data = image_bytes(only_grey(pixels) if grey else pixels, record, media_type, carried)
    data = _marked(data, media_type, record)
    return current_store().put(
        data,
        media_type,
        width=width,
        height=height,
        pixels=pixels if media_type in LOSSLESS else decode_still(data).pixels,
    )


def keep_changed(
    picture: ArtifactRef,
    record: FileRecord,
    change: Callable[[Iterator[Pixels]], Iterable[Pixels]],
    media_type: str = "image/png",
    *,
    stays_grey: bool = True,
) -> ArtifactRef:
    """Store what becomes of a stored picture, of all of its frames where it is animated.

    Args:
        picture: a still or an animated picture.
        record: how it is made.
        change: from (H, W, 3) uint8 sRGB of each frame to the same of any one size, one for one.
        media_type: of a still PNG, JPEG or WebP, of an animation not JPEG.
        stays_grey: whether what has no colour gets none.

    Raises:
        InvalidMediaError: the artifact is not a picture that can be decoded.
    """
    if not is_animated(picture):
        layers = load_layers(picture)
        (made,) = change(iter([layers.colours]))
        return keep_image(
            made, record, media_type, replace(layers, grey=layers.grey and stays_grey)
        )
    _note_left_aside(picture)
    store = current_store()
    data = store.read(picture)
    timing = timing_of(data)
    waiting: deque[Layers] = deque()
    firsts: list[Pixels] = []

    def colours() -> Iterator[Pixels]:
        for frame in frames_of(data):
            shown, alpha = split(frame)
            waiting.append(Layers(picture, shown, alpha, stays_grey and is_grey(shown)))
            yield shown

    def frames() -> Iterator[Pixels]:
        changed = iter(change(colours()))
        for at in range(len(timing.lasts)):
            with part(at, len(timing.lasts)):
                made = next(changed)
            pixels = covered(waiting.popleft().joined(made))
            if at == 0:
                firsts.append(pixels)
            yield pixels

    encoded = animation_bytes(frames(), timing, record, media_type, _carried(picture))
    (first,) = firsts
    height, width = first.shape[:2]
    return store.put(
        _marked(encoded, media_type, record),
        media_type,
        width=width,
        height=height,
        frames=len(timing.lasts),
        fps=timing.rate_fps,
        pixels=first,
    )


def _note_left_aside(source: ArtifactRef) -> None:
    aside = source.metadata.get("left_aside")
    if isinstance(aside, list) and aside:
        note("left aside of the source: " + "; ".join(str(text) for text in aside))


def _carried(source: ArtifactRef) -> Carried:
    store = current_store()
    path = store.fetch(source)
    return carried_from(path, store.read(source), read_record(path))


def keep_video(
    path: Path, *, width: int, height: int, frames: int, fps: float, media_type: str
) -> ArtifactRef:
    """Store a finished video file whose tags already hold its record."""

    def kept(file: Path) -> ArtifactRef:
        return current_store().put(
            file, media_type, width=width, height=height, frames=frames, fps=fps
        )

    record = read_record(path)
    if record is None or not to_be_signed(record):
        return kept(path)
    if media_type not in SIGNED:
        note(f"not signed: no place for C2PA is used in {media_type}; MP4 has one")
        return kept(path)
    from safelight.marking.signing import sign_video

    with half_made(path.parent) as signed:
        sign_video(path, signed, record, _sources(record))
        return kept(signed)


def keep_written(path: Path, media_type: str) -> ArtifactRef:
    """The same for one of which nothing else is known yet."""
    info = probe(path)
    return keep_video(
        path,
        width=info.width,
        height=info.height,
        frames=info.frames,
        fps=float(info.fps),
        media_type=media_type,
    )


def _marked(data: bytes, media_type: str, record: FileRecord) -> bytes:
    """Bytes of a picture, signed where that is wanted; what is written later breaks the mark."""
    if media_type not in PICTURES or not to_be_signed(record):
        return data
    from safelight.marking.signing import signed_picture

    return signed_picture(data, media_type, record, _sources(record))


def _sources(record: FileRecord) -> list[Source]:
    """The files among the running call's that a record names."""
    store = current_store()
    return [
        Source(ref.sha256, ref.media_type, store.fetch(ref))
        for ref in current_call().references
        if ref.sha256 in record.sources
    ]
