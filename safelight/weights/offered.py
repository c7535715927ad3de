"""Names of models for the forms of deployments.

A form is made of a flow's text when its module is imported, in the process that makes the
deployments. Others need no names and do not look for any.
"""

import json
import os
from typing import cast

from safelight.errors import PipelineError
from safelight.weights.kinds import ModelType
from safelight.weights.places import models_folder
from safelight.weights.registry import registry

VARIABLE = "SAFELIGHT_OFFERED_MODELS"
"""Of the environment of that process: names by parameter, as JSON."""
FIELDS = {
    "model": ModelType.CHECKPOINT,
    "vae": ModelType.VAE,
    "loras": ModelType.LORA,
    "embeddings": ModelType.EMBEDDING,
    "controlnet_model": ModelType.CONTROLNET,
    "ipadapter_model": ModelType.IP_ADAPTER,
}
"""Parameters that name models."""
MOST = 24
"""Names in a help text."""


def offered_models() -> dict[str, str]:
    """The environment with the names of this machine's models, after a look for new ones."""
    try:
        known = registry()
        if models_folder().is_dir():
            known.scan(hashes=False)
        names = {
            field: [info.name for info in known.list_models(kind) if _usable(info.name)]
            for field, kind in FIELDS.items()
        }
    except PipelineError:  # the forms do without
        return {}
    return {VARIABLE: json.dumps({field: found[: MOST + 1] for field, found in names.items()})}


def said_of_offered(field: str) -> str:
    """A sentence for the help text of a parameter; empty where it names no models."""
    if field not in FIELDS:
        return ""
    try:
        told = cast("dict[str, list[str]]", json.loads(os.environ.get(VARIABLE, "{}")))
    except ValueError:
        return ""
    names = told.get(field, [])
    if not names:
        return ""
    more = " and more" if len(names) > MOST else ""
    return f"There are: {', '.join(names[:MOST])}{more}."


def _usable(name: str) -> bool:
    return name.isprintable() and "," not in name
