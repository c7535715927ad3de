"""Presets as the command sees them: plain facts, found through an entry point.

The command sits below the presets in the layers, so it does not import them; the package that
has presets announces its catalog under `safelight.catalogs`.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from pydantic import BaseModel, JsonValue

from safelight.errors import DependencyMissingError


class Catalog(Protocol):
    """What the announced module offers."""

    def preset_ids(self) -> tuple[str, ...]:
        """Ids of all presets, sorted."""
        ...

    def find_preset(self, preset_id: str) -> BaseModel:
        """The card and knobs of a preset."""
        ...

    def check_overrides(self, preset_id: str, quality: str | None, overrides: JsonValue) -> None:
        """Refuse overrides that a preset does not take."""
        ...

    def check_pipeline(
        self, described: Mapping[str, JsonValue], call_input: dict[str, JsonValue]
    ) -> None:
        """Refuse a pipeline and its call as the flow would."""
        ...

    def pipeline_schemas(self, described: Mapping[str, JsonValue]) -> dict[str, dict[str, Any]]:
        """Name of each stage of a pipeline to the JSON schema of its parameters."""
        ...


def catalog() -> Catalog:
    """The catalog of this installation.

    Raises:
        DependencyMissingError: no package announces one.
    """
    found = list(entry_points(group="safelight.catalogs"))
    if not found:
        raise DependencyMissingError(
            "no package announces presets under safelight.catalogs",
            "install the checkout again: make run",
        )
    return cast(Catalog, found[0].load())
