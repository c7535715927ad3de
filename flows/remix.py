"""A picture made again from what its file says, with changes."""

from typing import Annotated

from pydantic import Field, JsonValue

from flows.running.inputs import Media, Seed, ingest_media
from flows.running.recorded import recorded_flow
from safelight.params import checked
from safelight.provenance.remixing.reading import understand
from safelight.store.artifact import ArtifactRef
from safelight.store.store import current_store
from tasks.base.recorder import recorder
from tasks.generate import GenerateParams, generate

NONE: dict[str, JsonValue] = {}
Remixed = Annotated[
    dict[str, JsonValue],
    Field(
        description='Values of generate that replace those of the file: {"steps": 30}. '
        "A null takes a value of the file away."
    ),
]


@recorded_flow
def remix(image: Media, changes: Remixed = NONE, seed: Seed = None) -> list[ArtifactRef]:
    """Make a picture again from what AUTOMATIC1111, ComfyUI, InvokeAI or Safelight wrote into it.

    The seed of the file is taken, or that of `changes`; `seed` where there is neither.
    """
    source = ingest_media("image", image, ("image",))
    found = understand(current_store().fetch(source))
    known = GenerateParams.model_fields
    left: list[JsonValue] = [
        *found.left,
        *(f"{name}: no value of generate" for name in found.parameters.keys() - known),
    ]
    taken = {name: value for name, value in found.parameters.items() if name in known}
    given = {name: value for name, value in {**taken, **changes}.items() if value is not None}
    recorder().answer["remix"] = {"tool": found.tool, "taken": taken, "left": left}
    return generate(checked(GenerateParams, "generate", **{"seed": seed, **given}))
