"""From references to pixels and back: what every stage does first and last."""

from collections.abc import Sequence
from pathlib import Path

from safelight.engines.identity import EngineIdentity
from safelight.media.images import decode_image
from safelight.params import Params
from safelight.provenance.embed import LOSSLESS, image_bytes, read_record
from safelight.provenance.record import FileRecord
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Pixels, current_store


def load_image(picture: ArtifactRef) -> Pixels:
    """(H, W, 3) uint8 sRGB, read-only; from memory when an earlier stage of this process made it.

    Raises:
        InvalidMediaError: the artifact is not a picture that can be decoded.
    """
    store = current_store()
    pixels = store.remembered(picture)
    if pixels is None:
        pixels = decode_image(store.read(picture))
        store.remember(picture, pixels)
    return pixels


def record_of(
    stage: str, params: Params, identity: EngineIdentity, sources: Sequence[ArtifactRef]
) -> FileRecord:
    """What the file will say about itself; pass it to `keep_image` or a video encoder's tags."""
    store = current_store()
    history: list[FileRecord] = []
    for source in sources:
        earlier = read_record(store.fetch(source))
        if earlier is not None:
            history.extend((*earlier.history, earlier.model_copy(update={"history": ()})))
    return FileRecord(
        stage=stage,
        parameters=params.model_dump(mode="json"),
        sources=tuple(source.sha256 for source in sources),
        engine_id=identity.engine_id,
        engine_version=identity.version,
        weights=identity.weights,
        history=tuple(history),
    )


def keep_image(pixels: Pixels, record: FileRecord, media_type: str = "image/png") -> ArtifactRef:
    """Store (H, W, 3) uint8 sRGB pixels with their record inside the file."""
    height, width = pixels.shape[:2]
    data = image_bytes(pixels, record, media_type)
    return current_store().put(
        data,
        media_type,
        width=width,
        height=height,
        pixels=pixels if media_type in LOSSLESS else decode_image(data),
    )


def keep_video(
    path: Path, *, width: int, height: int, frames: int, fps: float, media_type: str
) -> ArtifactRef:
    """Store a finished video file whose tags already hold its record."""
    return current_store().put(path, media_type, width=width, height=height, frames=frames, fps=fps)
