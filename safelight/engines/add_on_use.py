"""What a request says of add-ons to a model: their names, and how they take part."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AddOnUse:
    """A LoRA, ControlNet or IP-Adapter by its name."""

    name: str
    """As the models folder, or the engine's own list, has it."""
    weight: float = 1.0
    """How strongly it takes part."""
    text_weight: float | None = field(default=None, kw_only=True)
    """Of a LoRA: how strongly in the text encoders; None is `weight`."""


@dataclass(frozen=True)
class ControlUse(AddOnUse):
    """A ControlNet by its name."""

    start: float = 0.0
    """Part of the steps that go by before it takes part, 0 to 1."""
    end: float = 1.0
    """Part of the steps after which it takes no part any more, 0 to 1."""
