"""The check stage: whether a picture or video shows what it has to, and nothing it must not."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import ComputeRequest, Face, FaceRequest, FindsFaces, Request
from safelight.engines.judging import EmbedRequest, JudgesSafety, KnowsFaces, SafetyRequest
from safelight.errors import InvalidFieldValueError, PictureRefusedError, SafetyFilterError
from safelight.media.blankness import BLANK_SHARE, blank_share
from safelight.media.video.stream import read_frames
from safelight.params import Params
from safelight.pixels import Floats, Pixels
from safelight.progress import note
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.calling import serving
from tasks.base.ingest import ingest
from tasks.base.keeping import load_image
from tasks.base.stage import stage

REVISION = "2"
"""Raised when the same picture would be judged otherwise."""
FRAMES = 8
"""Of a video that are looked at, evenly over its length."""


class CheckParams(Params):
    """What a picture has to show, and what happens where it does not."""

    blank: bool = True
    """Whether a picture of one colour all over is refused."""
    faces: int = Field(default=0, ge=0, le=16)
    """How many faces it has to show at the least; 0 looks for none."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """How sure the detector must be of a face."""
    safe: bool = False
    """Whether a safety checker of the models folder looks at it."""
    references: tuple[str, ...] = Field(default=(), max_length=3)
    """`store:` links of photographs of the person whom it has to show."""
    similarity: float = Field(default=0.5, ge=0, le=1)
    """How alike its face has to be to theirs at the least: the cosine of what FaceNet says."""
    policy: Literal["fail", "warn", "next_seed"] = "fail"
    """fail ends the run; warn lets the picture pass with a note, and says so in the manifest;
    next_seed, in a pipeline, has the stage before it draw again with the next seed."""
    tries: int = Field(default=3, ge=1, le=8)
    """Drawings in all where the policy is next_seed."""
    then: Literal["fail", "warn"] = "fail"
    """What happens where none of them passes."""

    def located(self, keep: Callable[[str], str]) -> Self:
        """With the photographs as links."""
        return self.but(references=tuple(map(keep, self.references))) if self.references else self

    @model_validator(mode="after")
    def _a_person_has_a_face(self) -> Self:
        if self.references and self.faces > 1:
            raise ValueError(
                f"references name one person and faces is {self.faces}; set faces to 0 or 1"
            )
        return self


def _needs(params: CheckParams, _: Sequence[ArtifactRef]) -> tuple[Request, ...]:
    requests: list[Request] = [ComputeRequest(REVISION)]
    if params.faces or params.references:
        requests.append(FaceRequest(params.confidence))
    if params.references:
        requests.append(EmbedRequest())
    if params.safe:
        requests.append(SafetyRequest())
    return tuple(requests)


def _identity(_: CheckParams, engines: Sequence[EngineIdentity]) -> EngineIdentity:
    computes, *others = engines
    if not others:
        return computes
    first, *further = others
    versions = [first.version, *(f"{each.engine_id}{each.version}" for each in further)]
    return first.model_copy(
        update={
            "version": ".".join((*versions, computes.version)),
            "weights": tuple(sha256 for each in others for sha256 in each.weights),
        }
    )


@stage(
    reads={"picture": ("image", "video")},
    makes="same",
    origin="edits",
    needs=_needs,
    identity=_identity,
)
def check(picture: ArtifactRef, params: CheckParams) -> ArtifactRef:
    """Look whether a stored picture or video shows what it has to.

    Args:
        picture: (H, W, 3) uint8 sRGB; of a video `FRAMES` are looked at, and what more than half of
            them lack, or a single one shows that it must not, counts.
        params: what it has to show.

    Returns:
        The same artifact. Metadata `passed` says whether it shows all of it, `found` what it
        lacks.

    Raises:
        SafetyFilterError: the safety checker found something, and the policy is to fail.
        PictureRefusedError: it lacks something, and the policy is to fail.
        DependencyMissingError: a model that looks at it is missing.
        InvalidFieldValueError: one of the photographs shows no face.
    """
    found = _lacking(picture, params)
    unsafe = _is_unsafe(picture) if params.safe else False
    if unsafe:
        found.append("the safety checker finds it unfit for everybody")
    if found and params.policy == "fail":
        problem = f"the {picture.kind} {picture.sha256[:12]} does not pass: {'; '.join(found)}"
        remedy = "take another seed or prompt, or set the policy of the check to warn"
        raise (SafetyFilterError if unsafe else PictureRefusedError)(problem, remedy)
    for each in found:
        note(f"does not pass: {each}")
    return picture.described(passed=not found, found=list(found))


def _shown(picture: ArtifactRef) -> Iterator[Pixels]:
    """The picture, or some frames of a video."""
    if picture.kind == "image":
        yield load_image(picture)
        return
    count = picture.frames or FRAMES
    step = max(1, count // FRAMES)
    yield from islice(read_frames(current_store().fetch(picture)), step // 2, None, step)


def _lacking(picture: ArtifactRef, params: CheckParams) -> list[str]:
    person = _person(params)
    lacks = [list(_lacks(image, params, person)) for image in _shown(picture)]
    bad = [each for each in lacks if each]
    if 2 * len(bad) <= len(lacks):
        return []
    if picture.kind == "image":
        return bad[0]
    return [f"{len(bad)} of {len(lacks)} frames: {bad[0][0]}"]


def _is_unsafe(picture: ArtifactRef) -> bool:
    judge = serving(JudgesSafety)
    return any(judge.is_unsafe(SafetyRequest(), image) for image in _shown(picture))


def _lacks(image: Pixels, params: CheckParams, person: Floats | None) -> Iterator[str]:
    share = blank_share(image)
    if params.blank and share >= BLANK_SHARE:
        yield f"it is blank, {share:.1%} of it has one colour"
    if not params.faces and person is None:
        return
    seen = serving(FindsFaces).find_faces(FaceRequest(params.confidence), image)
    if len(seen) < params.faces:
        yield f"{len(seen)} faces at confidence {params.confidence:g}, expected {params.faces}"
    if person is None:
        return
    alike = max((_likeness(image, face, person) for face in seen), default=None)
    if alike is None:
        yield "it shows no face that could be compared with the photographs"
    elif alike < params.similarity:
        yield (
            f"its face is {alike:.2f} alike to the photographs, expected at least "
            f"{params.similarity:g}"
        )


def _likeness(image: Pixels, face: Face, person: Floats) -> float:
    return float(serving(KnowsFaces).embed_face(EmbedRequest(), image, face) @ person)


def _person(params: CheckParams) -> Floats | None:
    """What the largest faces of the photographs have in common, of length 1."""
    if not params.references:
        return None
    vectors: list[Floats] = []
    for link in params.references:
        image = load_image(ingest(link, ("image",)))
        faces = serving(FindsFaces).find_faces(FaceRequest(params.confidence), image)
        if not faces:
            raise InvalidFieldValueError(
                f"check: the photograph {link} shows no face at confidence {params.confidence:g}",
                "name one in references that does, or set confidence lower",
            )
        face = max(faces, key=lambda each: (each.right - each.left) * (each.bottom - each.top))
        vectors.append(serving(KnowsFaces).embed_face(EmbedRequest(), image, face))
    whole = np.sum(vectors, axis=0)
    return whole / np.linalg.norm(whole)
