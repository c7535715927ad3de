"""The check stage: whether a picture shows anything, and the faces that were asked for."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import ComputeRequest, FaceRequest, FindsFaces, Request
from safelight.errors import PictureRefusedError
from safelight.media.blankness import BLANK_SHARE, blank_share
from safelight.params import Params
from safelight.pixels import Pixels
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.keeping import load_image
from tasks.base.stage import stage

REVISION = "1"
"""Raised when the same picture would be judged otherwise."""


class CheckParams(Params):
    """What a picture has to show, and what happens where it does not."""

    blank: bool = True
    """Whether a picture of one colour all over is refused."""
    faces: int = Field(default=0, ge=0, le=16)
    """How many faces it has to show at the least; 0 looks for none."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """How sure the detector must be of a face."""
    policy: Literal["fail", "warn"] = "fail"
    """fail ends the run; warn lets the picture pass with a note, and says so in the manifest."""


def _needs(params: CheckParams, _: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    computes = ComputeRequest(REVISION)
    return (computes, FaceRequest(params.confidence)) if params.faces else (computes,)


def _identity(_: CheckParams, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    computes, *finds = engines
    if not finds:
        return computes
    (faces,) = finds
    return faces.model_copy(update={"version": f"{faces.version}.{computes.version}"})


@stage(
    reads={"picture": ("image",)},
    makes="same",
    origin="edits",
    needs=_needs,
    identity=_identity,
)
def check(picture: ArtifactRef, params: CheckParams) -> ArtifactRef:
    """Look whether a stored picture shows what it has to.

    Args:
        picture: (H, W, 3) uint8 sRGB.
        params: what it has to show.

    Returns:
        The same artifact. Metadata `passed` says whether it shows all of it, `found` what it
        lacks.

    Raises:
        PictureRefusedError: it lacks something, and the policy is to fail.
        DependencyMissingError: the weights of the detector are not installed.
    """
    found = list(_lacks(load_image(picture), params))
    if found and params.policy == "fail":
        raise PictureRefusedError(
            f"the picture {picture.sha256[:12]} does not pass: {'; '.join(found)}",
            "take another seed or prompt, or set the policy of the check to warn",
        )
    for each in found:
        note(f"does not pass: {each}")
    return picture.described(passed=not found, found=list(found))


def _lacks(image: Pixels, params: CheckParams) -> list[str]:
    found: list[str] = []
    share = blank_share(image)
    if params.blank and share >= BLANK_SHARE:
        found.append(f"it is blank, {share:.1%} of it has one colour")
    if params.faces:
        seen = serving(FindsFaces).find_faces(FaceRequest(params.confidence), image)
        if len(seen) < params.faces:
            found.append(
                f"{len(seen)} faces at confidence {params.confidence:g}, expected {params.faces}"
            )
    return found
