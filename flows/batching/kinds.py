"""Which requests stand together, and which take as long as one another."""

import hashlib
import json
from collections.abc import Mapping

from pydantic import JsonValue

from safelight.store.store import SCHEME

WORDS_AND_SEED = frozenset({"prompt", "negative_prompt", "seed"})
"""Parameters in which requests may differ that are drawn together, and that take as long."""
ALIKE = ("model", "width", "height", "scheduler", "vae", "loras", "embeddings", "controlnet_model")
"""Parameters whose change costs a model or its set-up; requests that share them stand together."""


def alike(parameters: Mapping[str, JsonValue]) -> str:
    """What requests share that stand together, sorted by it."""
    return json.dumps({name: parameters.get(name) for name in ALIKE}, sort_keys=True)


def kind_of(parameters: Mapping[str, JsonValue]) -> str:
    """What requests share that take as long: all but words, seeds and links to their files."""
    rest = {
        name: value
        for name, value in parameters.items()
        if name not in WORDS_AND_SEED and not (isinstance(value, str) and value.startswith(SCHEME))
    }
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
