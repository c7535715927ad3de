"""What can be chosen on the page: presets, operations, pipelines, workflows, each by a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from safelight.gateway import offers
from safelight.gateway.page.words import WORDS, say
from safelight.gateway.workflows import OPERATIONS, PIPELINE, flows_of, type_of

FIRST = "generate"
"""What is shown to whoever comes for the first time."""
PICTURES = "shelf/"
"""Of the static files."""
PLAIN = ("generate", "transform", "inpaint", "enhance", "interpolate", "blend", PIPELINE)
"""Workflows that are no presets, in the order of the shelf; trainings have a room of their own."""


@dataclass(frozen=True)
class Choice:
    """One of them."""

    workflow: str
    title: str
    description: str
    picture: str
    """Static file; empty where there is none."""
    kind: str
    """Which shelf: operation, preset, workflow."""


def choices(pictures: frozenset[str]) -> list[Choice]:
    """All of them: operations, then presets, then workflows of ComfyUI.

    Args:
        pictures: names of the static files that there are.
    """
    cards = {card.id: card for card in offers.presets(None, None).presets}
    found = [
        Choice(name, say(f"shelf.{name}"), say(f"shelf.{name}.about"), "", "operation")
        for name in PLAIN
    ]
    found += [Choice(card.id, card.name, card.description, "", "preset") for card in cards.values()]
    found += [
        Choice(card.id, card.name, card.description or card.error, "", "workflow")
        for card in offers.workflows().workflows
    ]
    return [
        Choice(
            each.workflow,
            each.title,
            each.description,
            picture if (picture := f"{PICTURES}{each.workflow}.webp") in pictures else "",
            each.kind,
        )
        for each in found
    ]


def title_of(workflow: str) -> str:
    """What people call a workflow."""
    if f"shelf.{workflow}" in WORDS:
        return say(f"shelf.{workflow}")
    if workflow in offers.catalog().preset_ids():
        return offers.preset(workflow).name
    return workflow.replace("_", " ")


def levels_of(workflow: str) -> Mapping[str, JsonValue] | None:
    """Tuned values of a preset; None where it is none."""
    kind = type_of(workflow)
    if kind is None or kind.value != "preset":
        return None
    return cast("Mapping[str, JsonValue]", offers.preset(workflow).levels)


def known(workflow: str) -> bool:
    """Whether there is a workflow of this name."""
    return workflow in flows_of() or workflow in OPERATIONS
