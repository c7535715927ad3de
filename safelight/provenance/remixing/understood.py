"""What was understood of how a picture was made, and what was not."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.params import SEEDS
from safelight.prompts.lora_tags import LoraTag
from safelight.provenance.parameters_text import is_sampler, model_name

MOST_SEED = SEEDS - 1
SHOWN = 120
"""Characters of a value that is left."""


class Understood(BaseModel):
    """Of one picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tool: str
    """Whose text it was."""
    parameters: dict[str, JsonValue]
    """As the stage `generate` names them."""
    hires: "Hires | None" = None
    """A second pass over the drawing, enlarged."""
    left: tuple[str, ...] = ()
    """What takes no part, each with its reason."""


class Hires(BaseModel):
    """The second pass of AUTOMATIC1111's Hires. fix."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scale: float
    """How many times as wide and as high."""
    strength: float
    """0 to 1, how much of the drawing is done again."""
    steps: int | None = None
    """That are taken; None: as many as the drawing has."""
    upscaler: str = ""
    """What enlarges, as that program calls it."""


class Reading:
    """Collects what one reader understands."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.parameters: dict[str, JsonValue] = {}
        self.hires: Hires | None = None
        self.left: list[str] = []

    def leave(self, what: str, value: object, why: str) -> None:
        """Name something that takes no part."""
        text = str(value)
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        self.left.append(f"{what} {shown}: {why}".replace("\n", " "))

    def take_text(self, name: str, value: object) -> None:
        """A prompt."""
        if isinstance(value, str) and value.strip():
            self.parameters[name] = value

    def take_number(self, name: str, value: object, *, whole: bool = True) -> None:
        """A number, also where it is written as text."""
        if value is None:
            return
        try:
            number = float(str(value)) if not whole else int(str(value))
        except ValueError:
            self.leave(name, value, "no number" if not whole else "no whole number")
            return
        if name == "seed" and not 0 <= number <= MOST_SEED:
            self.leave("seed", value, f"seeds here go up to {MOST_SEED}; a new one is drawn")
            return
        self.parameters[name] = number

    def take_model(self, value: object) -> None:
        """The name of a model, without folder and ending."""
        if isinstance(value, str) and value:
            self.parameters["model"] = model_name(value)

    def take_vae(self, value: object) -> None:
        """The name of a VAE in place of the model's own, without folder and ending."""
        if isinstance(value, str) and value:
            self.parameters["vae"] = model_name(value)

    def take_sampler(self, ours: str, theirs: str) -> None:
        """A sampler whose method is known here; with which noise levels, the engine says.

        Args:
            ours: its name here, if it is known.
            theirs: its name there.
        """
        if is_sampler(ours):
            self.parameters["scheduler"] = ours
        else:
            self.leave("sampler", theirs, "there is none like it here; the model's own draws")

    def take_loras(self, loras: list[LoraTag]) -> None:
        """LoRAs by name and weights."""
        if loras:
            self.parameters["loras"] = [
                {**lora._replace(name=model_name(lora.name)).as_parameters()} for lora in loras
            ]

    def understood(self) -> Understood:
        """All of it."""
        return Understood(
            tool=self.tool, parameters=self.parameters, hires=self.hires, left=tuple(self.left)
        )


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object of JSON, else an empty one."""
    return value if isinstance(value, dict) else {}
