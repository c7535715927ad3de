"""What there is to choose from: presets, operations, models; all of it known without a server."""

from collections.abc import Mapping
from functools import lru_cache
from time import monotonic
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, JsonValue

from safelight.client.catalog import catalog
from safelight.engines.remote.listing import EngineState, engine_states
from safelight.engines.remote.spending import DAYS, spent, today
from safelight.errors import InvalidFieldValueError, PipelineError
from safelight.gateway.problems import UnknownPresetError
from safelight.gateway.workflows import OPERATIONS, contract_of
from safelight.weights.registry import ModelInfo, registry
from safelight.workflows.files import flow_names, workflow_of

ENGINES_SECONDS = 30.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PresetCard(_Frozen):
    """A preset on its shelf."""

    id: str
    """What a job names as its workflow."""
    name: str
    """Title."""
    description: str
    """One or two sentences."""
    category: str
    """Shelf it stands on."""
    required_inputs: list[str]
    """Inputs that must be given."""
    optional_inputs: list[str]
    """Inputs that may be left out."""
    engines: list[str]
    """Engines in order of preference."""
    consent: str
    """When `consent_given` has to be true: never, with_reference, always."""
    safety_notes: list[str]
    """What to keep in mind before publishing a result."""
    quality_levels: list[str]
    """Values of `quality`."""


class PresetStep(_Frozen):
    """One step of a preset."""

    name: str
    """Key of `overrides`."""
    when: list[str]
    """Quality levels at which it runs."""


class PresetDetails(PresetCard):
    """A preset with all that is known of it."""

    failure_modes: dict[str, str]
    """Error code to a sentence that says what to do."""
    steps: list[PresetStep]
    """In their order."""
    levels: dict[str, JsonValue]
    """Tuned parameters of each step, by quality level."""
    parameters: dict[str, Any]
    """JSON schema of what a job of it takes."""


class Presets(_Frozen):
    """Presets that fit the filters."""

    total: int
    """How many."""
    presets: list[PresetCard]
    """By their ids."""


class Operation(_Frozen):
    """Something that is done in one stage."""

    id: str
    """What a job names as its workflow."""
    workflow: str
    """The same by its workflow type."""
    description: str
    """What it does."""
    parameters: dict[str, Any]
    """JSON schema of what a job of it takes."""


class Operations(_Frozen):
    """All operations."""

    total: int
    """How many."""
    operations: list[Operation]
    """By their ids."""


class WorkflowCard(_Frozen):
    """A workflow of ComfyUI that is a flow."""

    id: str
    """What a job names as its workflow."""
    name: str
    """Of its files."""
    description: str
    """What it does."""
    parameters: dict[str, Any]
    """JSON schema of what a job of it takes; empty where its files cannot be read."""
    error: str
    """Why they cannot; empty where they can."""


class Workflows(_Frozen):
    """All workflows of ComfyUI."""

    total: int
    """How many."""
    workflows: list[WorkflowCard]
    """By their names."""


class Engines(_Frozen):
    """All engines."""

    total: int
    """How many."""
    engines: list[EngineState]
    """By their ids."""
    spent_today_usd: float
    """On providers, today in UTC."""


class Models(_Frozen):
    """Models of this machine that fit the filter."""

    total: int
    """How many."""
    models: list[ModelInfo]
    """By their names."""


def presets(category: str | None, engine: str | None) -> Presets:
    """All presets of a category that have an engine; None is any.

    Raises:
        InvalidFieldValueError: no preset has this category or this engine.
    """
    cards = [_card(_facts(preset_id)) for preset_id in catalog().preset_ids()]
    _require("category", category, {card.category for card in cards})
    _require("engine", engine, {known for card in cards for known in card.engines})
    found = [
        card
        for card in cards
        if category in (None, card.category) and (engine is None or engine in card.engines)
    ]
    return Presets(total=len(found), presets=found)


def preset(preset_id: str) -> PresetDetails:
    """One preset.

    Raises:
        UnknownPresetError: there is none of this id.
    """
    known = catalog().preset_ids()
    if preset_id not in known:
        raise UnknownPresetError(
            f"there is no preset {preset_id[:80]!r}", f"choose one of {', '.join(known)}"
        )
    facts = _facts(preset_id)
    return PresetDetails(
        **_card(facts).model_dump(),
        failure_modes=facts["failure_modes"],
        steps=_steps(facts["levels"]),
        levels=facts["levels"],
        parameters=schema_of(preset_id),
    )


def operations() -> Operations:
    """All operations."""
    found = [
        Operation(id=name, workflow=flow, description=_said_of(flow), parameters=schema_of(flow))
        for name, flow in sorted(OPERATIONS.items())
    ]
    return Operations(total=len(found), operations=found)


def workflows() -> Workflows:
    """All workflows of ComfyUI that are flows."""
    found = [_workflow(flow) for flow in flow_names()]
    return Workflows(total=len(found), workflows=found)


def workflow(flow: str) -> WorkflowCard:
    """One of them.

    Raises:
        UnknownPresetError: there is none of this id.
    """
    known = flow_names()
    if flow not in known:
        raise UnknownPresetError(
            f"there is no workflow {flow[:80]!r}",
            f"choose one of {', '.join(known)}" if known else "add one: safelight workflow add",
        )
    return _workflow(flow)


def engines() -> Engines:
    """All engines, asked at most every half a minute: providers are asked for their balance."""
    return _engines(int(monotonic() / ENGINES_SECONDS))


@lru_cache(maxsize=1)
def _engines(_moment: int) -> Engines:
    found = list(engine_states())
    return Engines(total=len(found), engines=found, spent_today_usd=spent(f"{DAYS}{today()}/"))


def _workflow(flow: str) -> WorkflowCard:
    name = workflow_of(flow) or ""
    try:
        parameters, told, error = schema_of(flow), _said_of(flow), ""
    except PipelineError as refused:
        parameters, told, error = {}, "", str(refused)
    return WorkflowCard(id=flow, name=name, description=told, parameters=parameters, error=error)


def models(model_type: str | None) -> Models:
    """All models of a type that the registry of this machine knows; None is any.

    Raises:
        InvalidFieldValueError: there is no such type.
    """
    found = registry().list_models(model_type)
    return Models(total=len(found), models=found)


def schema_of(flow: str) -> dict[str, Any]:
    """JSON schema of a flow's parameters."""
    return contract_of(flow).flow.parameters.model_dump(exclude_none=True)


def _said_of(flow: str) -> str:
    text = contract_of(flow).flow.description or ""
    return text.partition("\n\n")[0]


def _facts(preset_id: str) -> dict[str, Any]:
    return catalog().find_preset(preset_id).model_dump(mode="json")


def _card(facts: Mapping[str, Any]) -> PresetCard:
    names = PresetCard.model_fields.keys() - {"quality_levels"}
    levels = list(cast("Mapping[str, Any]", facts["levels"]))
    return PresetCard(**{name: facts[name] for name in names}, quality_levels=levels)


def _steps(levels: Mapping[str, Mapping[str, JsonValue]]) -> list[PresetStep]:
    """Steps are the fields of a level that hold parameters; a level without the step has null."""
    names = dict.fromkeys(
        name for level in levels.values() for name, value in level.items() if _is_step(value)
    )
    return [
        PresetStep(name=name, when=[q for q, level in levels.items() if _is_step(level[name])])
        for name in names
    ]


def _is_step(value: JsonValue) -> bool:
    return isinstance(value, dict)


def _require(field: str, given: str | None, known: set[str]) -> None:
    if given is not None and given not in known:
        raise InvalidFieldValueError(
            f"{field} is {given[:80]!r}, expected one of {', '.join(sorted(known))}",
            f"correct {field}",
        )
