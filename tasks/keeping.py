"""From references to pixels and back: what every stage does first and last."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safelight.media.images import decode_still
from safelight.media.layers import is_grey, joined, on_white, split, without_colour
from safelight.params import Params
from safelight.progress import note
from safelight.provenance.carried import NOTHING, carried_from
from safelight.provenance.embed import LOSSLESS, image_bytes, read_record
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Pixels, current_store
from tasks.calling import current_call


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
    aside = picture.metadata.get("left_aside")
    if isinstance(aside, list) and aside:
        note("left aside of the source: " + "; ".join(str(text) for text in aside))
    pixels = store.remembered(picture)
    if pixels is None:
        pixels = decode_still(store.read(picture)).pixels
        store.remember(picture, pixels)
    return pixels


def record_of(params: Params, sources: Sequence[ArtifactRef]) -> FileRecord:
    """What a file of the running stage will say about itself.

    Pass it to `keep_image` or a video encoder's tags.
    """
    call = current_call()
    identity = call.identity
    store = current_store()
    history: dict[str, FileRecord] = {}  # branches of one origin bring it once
    for source in sources:
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
        store = current_store()
        path = store.fetch(like.source)
        ours = read_record(path) is not None
        carried = carried_from(path, store.read(like.source), ours=ours)
    height, width = pixels.shape[:2]
    data = image_bytes(pixels, record, media_type, carried)
    return current_store().put(
        data,
        media_type,
        width=width,
        height=height,
        pixels=pixels if media_type in LOSSLESS else decode_still(data).pixels,
    )


def keep_video(
    path: Path, *, width: int, height: int, frames: int, fps: float, media_type: str
) -> ArtifactRef:
    """Store a finished video file whose tags already hold its record."""
    return current_store().put(path, media_type, width=width, height=height, frames=frames, fps=fps)
