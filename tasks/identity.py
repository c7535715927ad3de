"""The identity stage: a picture of the person on one to three photographs."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from safelight.engines.instant_id import DrawsByInstantId, InstantIdRequest
from safelight.engines.interface import AddOnUse, DrawRequest, Draws
from safelight.errors import ConsentMissingError, InvalidFieldValueError
from safelight.media.canvas import on_canvas
from safelight.provenance.consent import STATEMENT
from safelight.store.artifact import ArtifactRef
from tasks.base.calling import serving
from tasks.base.sampling import PromptedParams, guides_of, keep_drawn, prompt_fields
from tasks.base.stage import stage

MOST_REFERENCES = 3
DEFAULT = "default"


class IdentityParams(PromptedParams):
    """What to draw the person as, at which size, and how closely."""

    method: Literal["ip_adapter", "instantid"] = "ip_adapter"
    """What looks at the photographs; instantid is drawn by the ComfyUI of the settings."""
    ipadapter_model: str = DEFAULT
    """Name of a folder in `ip_adapter`; for instantid of its model there, default is the first."""
    weight: float = Field(default=0.75, ge=0, le=1)
    """How strongly the photographs count: 0 ignores them, from 0.8 on the prompt loses."""
    width: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    height: int = Field(default=512, ge=64, le=4096, multiple_of=8)
    """Pixels."""
    canvas_width: int | None = Field(default=None, ge=64, le=4096)
    """As for generate."""
    canvas_height: int | None = Field(default=None, ge=64, le=4096)
    """As for generate."""
    consent_given: bool = Field(default=False, description=STATEMENT)


def _request(params: IdentityParams) -> DrawRequest:
    size = {"width": params.width, "height": params.height}
    if params.method == "instantid":
        named = params.ipadapter_model
        return InstantIdRequest(
            **prompt_fields(params),
            **size,
            weight=params.weight,
            adapter=None if named == DEFAULT else named,
        )
    adapter = AddOnUse(params.ipadapter_model, params.weight)
    return DrawRequest(**prompt_fields(params, adapter), **size)


def _needs(params: IdentityParams, references: Sequence[ArtifactRef]) -> tuple[DrawRequest, ...]:
    """A model with an IP-Adapter, or a ComfyUI with InstantID.

    Raises:
        ConsentMissingError: nobody says that the person agreed.
        InvalidFieldValueError: too many photographs.
    """
    if not params.consent_given:
        raise ConsentMissingError(
            "identity draws a person and consent_given is false",
            f"ask the person, then set consent_given to true, which says: {STATEMENT[:-1]}",
        )
    if len(references) > MOST_REFERENCES:
        raise InvalidFieldValueError(
            f"identity: {len(references)} photographs, expected 1 to {MOST_REFERENCES}",
            "name the best of them",
        )
    return (_request(params),)


@stage(
    reads={"references": ("image",)},
    makes="image",
    origin="creates",
    needs=_needs,
)
def identity(references: list[ArtifactRef], params: IdentityParams) -> list[ArtifactRef]:
    """Draw the person on one to three photographs as the prompt says.

    Args:
        references: photographs of one person; several views keep more than one does.
        params: prompt, seed, size, weight, and the consent of the person.

    Returns:
        `num_images` new artifacts, as `generate`.

    Raises:
        ConsentMissingError: nobody says that the person agreed.
        InvalidFieldValueError: more than three photographs.
        DependencyMissingError: there is no IP-Adapter, or no ComfyUI with InstantID.
        As `generate`.
    """
    guides = guides_of(params, params.width, params.height, references)
    request = _request(params)
    if isinstance(request, InstantIdRequest):
        pictures = serving(DrawsByInstantId).draw_person(request, guides.references)
    else:
        pictures = serving(Draws).draw(request, guides)
    wide, tall = params.canvas_width or params.width, params.canvas_height or params.height
    shown = [on_canvas(each, wide, tall) for each in pictures.pixels]
    return keep_drawn(shown, params, references, pictures)
