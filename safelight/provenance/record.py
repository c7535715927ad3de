"""What every file carries about how it was made."""

from pydantic import BaseModel, ConfigDict, JsonValue


class FileRecord(BaseModel):
    """Written into the file itself; holds nothing that differs between identical runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    stage: str
    """Name of the stage that made the file."""
    parameters: dict[str, JsonValue]
    """The stage's parameters, defaults included."""
    sources: tuple[str, ...] = ()
    """sha256 of each input artifact."""
    engine_id: str = ""
    """Engine that did the work."""
    engine_version: str = ""
    """Its version."""
    weights: tuple[str, ...] = ()
    """sha256 of each weights file."""
    history: tuple["FileRecord", ...] = ()
    """Records of the inputs, oldest first, as read from their files."""
