"""The judge stage: which of several trainings draws nearer to the pictures it has learnt."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.media.nearness import distances
from safelight.media.sheets import grid
from safelight.params import Params
from safelight.store.artifact import ArtifactRef
from tasks.base.keeping import keep_image, load_image, record_of
from tasks.base.stage import stage

REVISION = "1"
"""Raised when the same pictures would be judged otherwise."""
CELL = 192
"""Side of a picture on the sheet, px."""


class JudgeParams(Params):
    """Which pictures are which."""

    prompts: tuple[str, ...] = Field(min_length=1)
    """A column each."""
    versions: tuple[str, ...] = Field(min_length=1)
    """A row each; their pictures come first, row by row, then the references."""


def _identity(params: Params, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    del params, engines
    return EngineIdentity(engine_id="nearness", version=REVISION)


@stage(reads={"pictures": ("image",)}, makes="image", origin="edits", identity=_identity)
def judge(pictures: list[ArtifactRef], params: JudgeParams) -> ArtifactRef:
    """Measure how far the pictures of each version are from the references.

    Args:
        pictures: those of the first version, one of each prompt; those of the others; references.
        params: which are which.

    Returns:
        A new picture, a sheet. Metadata `distances` has the mean of each version: see
        `safelight.media.nearness`.
    """
    shown = [load_image(ref) for ref in pictures]
    width = len(params.prompts)
    count = width * len(params.versions)
    drawn, references = shown[:count], shown[count:]
    each = distances(drawn, references)
    means = [float(np.mean(each[at : at + width])) for at in range(0, count, width)]
    rows = [
        (f"{name}: {mean:.3f}", drawn[at * width : (at + 1) * width])
        for at, (name, mean) in enumerate(zip(params.versions, means, strict=True))
    ]
    sheet = grid(rows, params.prompts, CELL, title="distance to the pictures; less is nearer")
    made = keep_image(sheet, record_of(params, pictures))
    return made.described(distances=dict(zip(params.versions, means, strict=True)))
