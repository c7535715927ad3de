"""Finds stages by name: every module of this package that holds a stage of the same name."""

import importlib
import pkgutil
from functools import lru_cache
from typing import Any

import tasks
from safelight.errors import ContractMismatchError
from tasks.base.stage import Stage

ALIASES = {
    "text_to_image": "generate",
    "image_to_image": "transform",
    "refiner": "refine",
    "detailer": "detail",
    "upscaler": "upscale",
}
"""Older names that `stage_type` also answers to."""


@lru_cache(maxsize=1)
def stages() -> dict[str, Stage[..., Any]]:
    """All stages by name; imports their modules, which load no engine."""
    found: dict[str, Stage[..., Any]] = {}
    for module_info in pkgutil.iter_modules(tasks.__path__):
        module = importlib.import_module(f"tasks.{module_info.name}")
        candidate = getattr(module, module_info.name, None)
        if isinstance(candidate, Stage):
            found[candidate.name] = candidate
    return found


def find_stage(stage_type: str) -> Stage[..., Any]:
    """The stage with this name or older name.

    Raises:
        ContractMismatchError: there is none.
    """
    stage = stages().get(ALIASES.get(stage_type, stage_type))
    if stage is None:
        raise ContractMismatchError(
            f"there is no stage {stage_type!r}; there are {', '.join(sorted(stages()))}",
            "correct stage_type",
        )
    return stage
