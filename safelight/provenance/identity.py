"""What makes two results of a stage interchangeable, apart from its parameters and inputs."""

from pydantic import BaseModel, ConfigDict


class EngineIdentity(BaseModel):
    """Part of every cache key: change any of it and the stage runs again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_id: str
    """Name of the engine, for instance `realesrgan`."""
    version: str
    """Version of the library plus our own revision of the arithmetic, for instance `1.0.2+1`."""
    weights: tuple[str, ...] = ()
    """sha256 of each weights file, in a fixed order."""
    device_class: str = "cpu"
    """`cpu`, `mps`, or `cuda`; results are byte-identical only within one class."""


class PassedOver(BaseModel):
    """An engine that was asked before the one that served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_id: str
    """Its name."""
    code: str
    """Why it did not serve: the code of its refusal or failure."""
    problem: str
    """What was found."""
    remedy: str
    """What would make it serve."""
