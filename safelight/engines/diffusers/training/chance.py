"""All that a training leaves to chance, as a function of its seed and of where it is.

Nothing is drawn from a state that goes on from step to step, so there is none to keep: a training
that is taken up at a step draws there what it would have drawn.
"""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived(seed: int, *place: object) -> int:
    """A seed of its own for a place, such as a step and an example in it."""
    text = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def words(seed: int, *place: object) -> random.Random:
    """Chance for captions, orders and mirrored pictures."""
    return random.Random(derived(seed, *place))


def numbers(seed: int, *place: object) -> "torch.Generator":
    """Chance for noise; on the CPU, so that it is the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(derived(seed, *place))
