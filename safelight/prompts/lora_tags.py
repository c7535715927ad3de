"""LoRAs as people write them into prompts.

Stable Diffusion web UI has `<lora:NAME>`, `<lora:NAME:WEIGHT>` and two weights, for the text
encoder and for what draws, by place or by name; the extension before it wrote `lyco`. Names may
have the folder and the ending of the file.
"""

import re

MOST = 4.0
"""Weight of a LoRA, either way."""
_TAG = re.compile(r"\s?<(?:lora|lyco):([^<>]*)>", re.IGNORECASE)
_ENDING = re.compile(r"\.(safetensors|ckpt|pth|pt)$", re.IGNORECASE)
_NAMED = {"te": 0, "unet": 1}
"""Names of the weights by their place."""


def lora_tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """A prompt without its LoRA tags, and the LoRAs that they name, with their weights.

    Raises:
        ValueError: a tag has no name, or no weight that is one.
    """
    loras = [_lora(tag[0].strip(), *tag[1].split(":")) for tag in _TAG.finditer(prompt)]
    return (_TAG.sub("", prompt).strip() or " ", loras) if loras else (prompt, [])


def _lora(tag: str, name: str, *given: str) -> tuple[str, float]:
    name = _ENDING.sub("", re.split(r"[/\\]", name)[-1].strip()).strip()
    weights: list[float | None] = [None, None]
    for place, text in enumerate(given):
        said, is_named, value = text.rpartition("=")
        at = _NAMED.get(said.strip().lower(), -1) if is_named else place
        if not 0 <= at < len(weights) or weights[at] is not None:
            raise ValueError(
                f"the tag {tag[:80]} says {text[:40]!r}, which takes no part here; "
                "write <lora:NAME:WEIGHT>"
            )
        weights[at] = _weight(value)
        if weights[at] is None:
            name = ""
    text_weight, weight = weights
    if text_weight is None:
        text_weight = 1.0 if weight is None else weight
    if weight is None:
        weight = text_weight
    if not name or not -MOST <= weight <= MOST:
        raise ValueError(
            f"the tag {tag[:80]} names no LoRA with a weight from -{MOST:g} to {MOST:g}; "
            "write <lora:NAME:WEIGHT>"
        )
    if weight != text_weight:
        raise ValueError(
            f"the tag {tag[:80]} has weight {text_weight:g} for the text and {weight:g} for the "
            "picture, which are one here; write <lora:NAME:WEIGHT>"
        )
    return name, weight


def _weight(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
