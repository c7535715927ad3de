"""What is known of an upscaler once somebody has looked into it."""

from pydantic import BaseModel, ConfigDict


class Upscaler(BaseModel):
    """What is known of a network by its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    architecture: str
    """As spandrel calls it."""
    purpose: str
    """SR, FaceSR, Restoration or Inpainting."""
    scale: int
    """Output px per input px, along each side."""
    input_channels: int
    """3 for colours, 1 for grey, 4 with transparency."""
    output_channels: int
    """The same of its result."""
    supports_half: bool
    """Whether it may compute in fp16."""
    supports_bfloat16: bool
    """Whether it may compute in bf16."""
    parameters: int
    """How many numbers it has."""
