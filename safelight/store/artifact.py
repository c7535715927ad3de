"""The reference that stages pass to one another instead of pixels."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

MediaKind = Literal["image", "video", "audio", "text", "other"]
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/tiff": ".tif",
    "image/bmp": ".bmp",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/jxl": ".jxl",
    "video/mp4": ".mp4",
    "video/x-matroska": ".mkv",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "video/mxf": ".mxf",
    "audio/wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "application/json": ".json",
    "application/vnd.safetensors": ".safetensors",
    "text/plain": ".txt",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.ms-excel": ".xls",
}
"""The one extension each media type is stored under."""


class ArtifactRef(BaseModel):
    """Names stored bytes by their content; small enough to log, hash and keep in Prefect."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    uri: str
    """`store:outputs/ab/ab12...ef.png`: the key inside whichever store is configured."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hex digest of the bytes."""
    media_type: str
    """MIME type."""
    bytes: int = Field(ge=0)
    """Size in bytes."""
    width: int | None = Field(default=None, ge=1)
    """Pixels; None for sound and text."""
    height: int | None = Field(default=None, ge=1)
    """Pixels; None for sound and text."""
    frames: int | None = Field(default=None, ge=1)
    """Of a video or an animated picture; None for anything else."""
    fps: float | None = Field(default=None, gt=0)
    """Frames per second, the mean of an animated picture; None where there are no frames."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """How it was made: stage, seconds, peak_bytes, engine, notes. Not part of the identity."""

    @property
    def kind(self) -> MediaKind:
        """The first half of the media type, as pipelines check it."""
        first = self.media_type.split("/", 1)[0]
        if first in ("image", "video", "audio", "text"):
            return first
        return "other"

    @property
    def extension(self) -> str:
        """File extension with its dot."""
        return EXTENSIONS.get(self.media_type, ".bin")

    def described(self, **facts: JsonValue) -> "ArtifactRef":
        """The same artifact with `facts` added to its metadata."""
        return self.model_copy(update={"metadata": {**self.metadata, **facts}})
