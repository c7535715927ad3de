"""Presets and pipelines as clients see them: plain facts, found through entry points.

Clients sit below presets and flows in the layers, so they do not import them; the packages that
have them announce them under `safelight.catalogs`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from pydantic import BaseModel, JsonValue

from safelight.errors import DependencyMissingError

GROUP = "safelight.catalogs"


class Problem(Protocol):
    """Something that is wrong with a pipeline."""

    path: tuple[str | int, ...]
    """Where: names and places from the outside in."""
    code: str
    problem: str
    """What was found and what was expected."""
    remedy: str


class Catalog(Protocol):
    """What the announced module offers."""

    def preset_ids(self) -> tuple[str, ...]:
        """Ids of all presets, sorted."""
        ...

    def find_preset(self, preset_id: str) -> BaseModel:
        """The card and knobs of a preset."""
        ...

    def check_overrides(
        self,
        preset_id: str,
        quality: str | None,
        overrides: JsonValue,
        given: Mapping[str, JsonValue] = ...,
    ) -> None:
        """Refuse overrides that a preset does not take."""
        ...


class Pipelines(Protocol):
    """What the announced module offers."""

    def check_pipeline(
        self, described: Mapping[str, JsonValue], call_input: dict[str, JsonValue]
    ) -> None:
        """Refuse a pipeline and its call as the flow would."""
        ...

    def pipeline_problems(
        self, described: Mapping[str, JsonValue], call_input: dict[str, JsonValue]
    ) -> Sequence[Problem]:
        """Everything that is wrong with a pipeline, whatever media its call brings."""
        ...

    def pipeline_diagram(self, described: Mapping[str, JsonValue]) -> Sequence[str]:
        """A pipeline as the lines of a Mermaid diagram."""
        ...

    def pipeline_schemas(self, described: Mapping[str, JsonValue]) -> dict[str, dict[str, Any]]:
        """Name of each stage of a pipeline to the JSON schema of its parameters."""
        ...


def catalog() -> Catalog:
    """The presets of this installation.

    Raises:
        DependencyMissingError: no package announces any.
    """
    return cast(Catalog, _announced("presets"))


def pipelines() -> Pipelines:
    """What checks the pipelines of this installation.

    Raises:
        DependencyMissingError: no package announces it.
    """
    return cast(Pipelines, _announced("pipelines"))


@cache
def _announced(name: str) -> object:
    """What is installed does not change while a process runs, and looking for it takes 20 ms."""
    for found in entry_points(group=GROUP, name=name):
        return found.load()
    raise DependencyMissingError(
        f"no package announces {name} under {GROUP}", "install the checkout again: make run"
    )
