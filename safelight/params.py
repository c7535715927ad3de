"""The base of every parameter model."""

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Frozen parameters: unknown fields are refused, attribute docstrings become help texts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
