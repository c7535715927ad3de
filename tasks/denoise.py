"""The denoise stage: noise taken out of a picture or a video, edges kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.media.denoising import settle, smooth_edges_kept
from safelight.media.video import transform_frames
from safelight.params import Params
from safelight.progress import step
from safelight.provenance.embed import video_tags
from safelight.store.artifact import ArtifactRef
from safelight.store.store import Pixels, current_store
from tasks.keeping import keep_image, keep_video, load_image, record_of
from tasks.stage import stage

REVISION = "1"
"""Raised when the arithmetic changes, so that no older result is taken for a new one."""


class DenoiseParams(Params):
    """How much noise to take out."""

    level: float = Field(default=0.3, ge=0, le=1)
    """Noise that is expected: 0 none, 0.3 a phone in dim light, 1 the worst a camera makes."""


def _identity(params: DenoiseParams) -> EngineIdentity:
    del params
    return EngineIdentity(engine_id="numpy", version=f"{np.__version__}+{REVISION}")


@stage(takes=("image", "video"), gives="same", identity=_identity)
def denoise(picture: ArtifactRef, params: DenoiseParams) -> ArtifactRef:
    """Take noise out of one stored picture, or out of a video in space and time.

    Args:
        picture: (H, W, 3) uint8 sRGB, or a video.
        params: how much.

    Returns:
        A new artifact of the same size; the input itself at level 0.

    Raises:
        InvalidMediaError: the artifact is not a picture or video that can be decoded.
    """
    if params.level == 0:
        return picture
    record = record_of("denoise", params, _identity(params), [picture])
    if picture.kind == "image":
        clean = smooth_edges_kept(load_image(picture), params.level)
        step(1, 1)
        return keep_image(clean, record)
    store = current_store()

    def cleaned(frames: Iterator[Pixels]) -> Iterator[Pixels]:
        return (smooth_edges_kept(f, params.level) for f in settle(frames, params.level))

    with store.workspace() as folder:
        path = Path(folder) / "denoised"
        made = transform_frames(store.fetch(picture), path, cleaned, video_tags(record))
        return keep_video(
            path,
            width=made.width,
            height=made.height,
            frames=made.frames,
            fps=float(made.fps),
            media_type=made.media_type,
        )
