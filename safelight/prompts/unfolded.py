"""What a prompt unfolded to, as records, manifests and tables keep it."""

from pydantic import BaseModel, ConfigDict

PROMPTS = ("prompt", "negative_prompt", "prompt_template")
"""Parameters that may hold choices."""


class Taken(BaseModel):
    """One choice that was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """As it is written: `{red|blue}` or `__colors__`."""
    at: int
    """Where, in characters from 1."""
    within: str = ""
    """File and line of the wildcard in whose value it stands; empty for the prompt itself."""
    took: tuple[str, ...]
    """What it unfolded to."""


class Unfolded(BaseModel):
    """A prompt that held choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    """The parameter that it was given in."""
    template: str
    """As it was written."""
    combination: int | None = None
    """Which of its combinations was asked for, from 1; None where the seed drew."""
    text: str
    """What the model was given."""
    choices: tuple[Taken, ...] = ()
    """In the order they were made."""
