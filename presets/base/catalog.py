"""Finds presets by their id: every module of this package whose name ends in a version."""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from pydantic import JsonValue

import presets
from presets.base.portrait import with_switched
from presets.base.preset import Knobs, Overrides, Preset, Quality
from safelight.errors import ContractMismatchError

NOTHING: Mapping[str, JsonValue] = MappingProxyType({})
_VERSIONED = re.compile(r"^[a-z0-9_]+_v\d+$")


def preset_ids() -> tuple[str, ...]:
    """Ids of all presets, sorted."""
    names = (module.name for module in pkgutil.iter_modules(presets.__path__))
    return tuple(sorted(name for name in names if _VERSIONED.match(name)))


def find_preset(preset_id: str) -> Preset[Knobs]:
    """The preset with this id.

    Raises:
        ContractMismatchError: there is none.
    """
    if preset_id not in preset_ids():
        raise ContractMismatchError(
            f"there is no preset {preset_id!r}; there are {', '.join(preset_ids())}",
            "choose one of these",
        )
    module = importlib.import_module(f"presets.{preset_id}")
    return module.PRESET


def check_overrides(
    preset_id: str,
    quality: str | None,
    overrides: JsonValue,
    given: Mapping[str, JsonValue] = NOTHING,
) -> None:
    """Refuse overrides that the preset does not take at this quality level.

    Args:
        preset_id: of a preset.
        quality: None is the level that its flow takes when none is named.
        overrides: as the flow got them, already known to be objects in an object.
        given: all parameters of the flow, some of which switch steps on and off.

    Raises:
        PipelineError: as `Knobs.overridden` says.
    """
    level = cast(Quality, quality or "standard")
    knobs = with_switched(find_preset(preset_id).at(level), given)
    knobs.overridden(cast(Overrides, overrides))
