"""Presets as the command sees them: plain facts, found through an entry point.

The command sits below the presets in the layers, so it does not import them; the package that
has presets announces its catalog under `safelight.catalogs`.
"""

from importlib.metadata import entry_points
from typing import Protocol, cast

from pydantic import BaseModel

from safelight.errors import DependencyMissingError


class Catalog(Protocol):
    """What the announced module offers."""

    def preset_ids(self) -> tuple[str, ...]:
        """Ids of all presets, sorted."""
        ...

    def find_preset(self, preset_id: str) -> BaseModel:
        """The card and knobs of a preset."""
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
