"""LoRAs as people write them into prompts.

Stable Diffusion web UI has `<lora:NAME>`, `<lora:NAME:WEIGHT>` and two weights, for the text
encoder and for what draws, by place or by name; the extension before it wrote `lyco`. Names may
have the folder and the ending of the file.
"""

import re
from typing import NamedTuple

MOST = 4.0
"""Weight of a LoRA, either way."""
_TAG = re.compile(r"\s?<(?:lora|lyco):([^<>]*)>", re.IGNORECASE)
_ENDING = re.compile(r"\.(safetensors|ckpt|pth|pt)$", re.IGNORECASE)
_NAMED = {"te": 0, "unet": 1}
"""Names of the weights by their place."""


class LoraTag(NamedTuple):
    """A LoRA with how strongly it takes part."""

    name: str
    weight: float
    """In what draws, and in the text encoders where nothing else is said."""
    text_weight: float | None = None
    """In the text encoders; None is `weight`."""

    def as_parameters(self) -> dict[str, str | float]:
        """As stages take it."""
        apart = {} if self.text_weight is None else {"text_weight": self.text_weight}
        return {"name": self.name, "weight": self.weight, **apart}


def lora_tags(prompt: str) -> tuple[str, list[LoraTag]]:
    """A prompt without its LoRA tags, and the LoRAs that they name, with their weights.

    Raises:
        ValueError: a tag has no name, or no weight that is one.
    """
    loras = [_lora(tag[0].strip(), *tag[1].split(":")) for tag in _TAG.finditer(prompt)]
    return (_TAG.sub("", prompt).strip() or " ", loras) if loras else (prompt, [])


def _lora(tag: str, name: str, *given: str) -> LoraTag:
    name = _ENDING.sub("", re.split(r"[/\\]", name)[-1].strip()).strip()
    weights: list[float | None] = [None, None]
    for place, text in enumerate(given):
        said, is_named, value = text.rpartition("=")
        at = _NAMED.get(said.strip().lower(), -1) if is_named else place
        if not 0 <= at < len(weights) or weights[at] is not None:
            raise ValueError(
                f"the tag {tag[:80]} says {text[:40]!r}, which takes no part here; "
                "write <lora:NAME:WEIGHT> or <lora:NAME:TEXT WEIGHT:WEIGHT>"
            )
        weights[at] = _weight(value)
        if weights[at] is None:
            name = ""
    text_weight, weight = weights
    if text_weight is None:
        text_weight = 1.0  # whatever stands for the other, as there
    if weight is None:
        weight = text_weight
    if not name or not all(-MOST <= each <= MOST for each in (text_weight, weight)):
        raise ValueError(
            f"the tag {tag[:80]} names no LoRA with a weight from -{MOST:g} to {MOST:g}; "
            "write <lora:NAME:WEIGHT>"
        )
    return LoraTag(name, weight, None if text_weight == weight else text_weight)


def _weight(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
