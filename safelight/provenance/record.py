"""What every file carries about how it was made."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from safelight.prompts.unfolded import Unfolded

Origin = Literal["creates", "redraws", "enhances", "edits"]
"""What a stage does to pixels: all of them come out of a model that was trained on pictures; such
pixels get into a picture that may be a photograph; they are made better; they are arranged or
adjusted as a person said."""


def usual_origin(known: Mapping[str, Any]) -> Origin:
    """The origin of a record that names none: without a source it is created, by a prompt redrawn.

    Args:
        known: fields of the record by name, as far as they are known.
    """
    if not known.get("sources"):
        return "creates"
    parameters = cast("Mapping[str, object]", known.get("parameters", {}))
    return "redraws" if "prompt" in parameters else "enhances"


class FileRecord(BaseModel):
    """Written into the file itself; holds nothing that differs between identical runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    """Name of the stage that made the file."""
    parameters: dict[str, JsonValue]
    """The stage's parameters, defaults included."""
    sources: tuple[str, ...] = ()
    """sha256 of each input artifact."""
    origin: Origin = Field(default_factory=usual_origin)
    """What the stage does to pixels; left out of the file where it is the usual one."""
    engine_id: str = ""
    """Engine that did the work."""
    engine_version: str = ""
    """Its version."""
    weights: tuple[str, ...] = ()
    """sha256 of each weights file."""
    sampler: str = ""
    """Sampler that drew, also where the model's own did; left out of files that none drew."""
    unfolded: tuple[Unfolded, ...] = ()
    """Its prompts that held choices, as they were written, and what was chosen; left out of files
    without any."""
    history: tuple["FileRecord", ...] = ()
    """Records of the inputs, oldest first, as read from their files."""

    @model_serializer(mode="wrap")
    def _without_the_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = cast("dict[str, Any]", handler(self))
        if self.origin == usual_origin({"sources": self.sources, "parameters": self.parameters}):
            written.pop("origin", None)
        for name in ("sampler", "unfolded"):
            if not getattr(self, name):
                written.pop(name, None)
        return written
