"""Denoising steps and guidance that the model recommends, as the tuning chose them."""

import json
from dataclasses import dataclass
from pathlib import Path

CHOSEN = Path(__file__).parent / "tuning.json"
"""What the last tuning measured and chose."""


@dataclass(frozen=True)
class Settings:
    """How to draw with the model."""

    steps: int = 12
    """Denoising steps."""
    guidance_scale: float = 3.0
    """Weight of the prompt against no prompt; 1 is none."""


def chosen_settings() -> Settings:
    """Read what the tuning chose; without one, its middle values."""
    if not CHOSEN.exists():
        return Settings()
    chosen = json.loads(CHOSEN.read_text(encoding="utf-8"))["chosen"]
    return Settings(chosen["steps"], chosen["guidance_scale"])
