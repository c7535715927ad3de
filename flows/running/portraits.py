"""What portrait flows have in common: switches, and what follows the drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from presets.base.portrait import with_switched
from presets.base.preset import K
from safelight.errors import InvalidFieldValueError
from safelight.store.artifact import ArtifactRef
from tasks.base.sampling import ReferenceUse
from tasks.detail import DetailParams, detail
from tasks.generate import GenerateParams
from tasks.upscale import UpscaleParams, upscale

UseControlnet = Annotated[
    bool | None,
    Field(
        description="Steer the composition by a picture, which overrides.generate names as "
        "controlnet_image, with controlnet_model. None: as the overrides say."
    ),
]
UseIpadapter = Annotated[
    bool | None,
    Field(
        description="Take the person from identity_reference. None: where one is given. "
        "False: the photographs take no part."
    ),
]
UseFacedetailer = Annotated[
    bool | None,
    Field(description="Draw faces again at the model's full resolution. None: as the quality."),
]
UseUpscale = Annotated[bool | None, Field(description="Enlarge the picture. None: as the quality.")]


@dataclass(frozen=True)
class Switches:
    """What a caller switches on or off; None leaves it to the quality level."""

    facedetailer: bool | None
    """Faces are drawn again."""
    upscale: bool | None
    """The picture is enlarged."""
    controlnet: bool | None = None
    """A picture steers the composition."""
    ipadapter: bool | None = None
    """The reference photographs take part."""

    def steps(self, knobs: K) -> K:
        """Knobs with the steps that are switched on, and without those that are off."""
        on = {"use_facedetailer": self.facedetailer, "use_upscale": self.upscale}
        return with_switched(knobs, on)

    def sampling(
        self, knobs: GenerateParams, people: Sequence[ArtifactRef]
    ) -> tuple[GenerateParams, tuple[ArtifactRef, ...]]:
        """Parameters of the drawing, and the photographs that take part in it.

        Raises:
            InvalidFieldValueError: something is switched on that has no picture.
        """
        if self.controlnet is not None:
            off = {} if self.controlnet else {"further_controlnets": ()}
            knobs = knobs.but(use_controlnet=self.controlnet, **off)
        if self.ipadapter and not people and not knobs.ipadapter_images:
            raise InvalidFieldValueError(
                "use_ipadapter is true and there is no photograph",
                "name one in identity_reference, or leave use_ipadapter out",
            )
        if self.ipadapter is False:
            return knobs.but(use_ipadapter=False), ()
        return knobs, tuple(people)


def finished(
    picture: ArtifactRef,
    steps: tuple[DetailParams | None, UpscaleParams | None],
    prompt: str,
    seed: int | None,
    reference: ReferenceUse | None,
) -> ArtifactRef:
    """A portrait with its faces drawn again, and enlarged, where its knobs have these steps.

    Args:
        picture: as it was drawn.
        steps: its knobs; None leaves a step out.
        prompt: the caller's.
        seed: of the run.
        reference: the person, whom the faces keep.
    """
    faces, enlargement = steps
    if faces is not None:
        shown = faces.reference or reference
        picture = detail(picture, faces.but(prompt=prompt, seed=seed, reference=shown))
    return picture if enlargement is None else upscale(picture, enlargement)


def reference_of(params: GenerateParams, people: Sequence[ArtifactRef]) -> ReferenceUse | None:
    """The person in a drawing, for the steps after it."""
    return ReferenceUse.of(people, params.ipadapter_model, params.ipadapter_weight)
