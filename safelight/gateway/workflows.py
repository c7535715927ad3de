"""What can be asked of the gateway by name: presets, operations, pipelines; and how it is checked.

A workflow is a flow with a deployment of the same name. Flows are loaded by name, as Prefect loads
them: the gateway stands below them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from typing import cast

from pydantic import JsonValue

from safelight.client.catalog import catalog, pipelines
from safelight.client.contracts import Contract, contract
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.workflows.files import flow_names, workflow_of

OPERATIONS = {
    "image_generation": "generate",
    "image_transform": "transform",
    "image_inpaint": "inpaint",
}
"""Operation to its flow."""
PIPELINE = "pipeline"
TRAINING = "train_lora"
MARK = "__prefect_kind"
"""With a field of this name Prefect puts its own variables in the place of a parameter."""


class WorkflowType(StrEnum):
    """What kind of work a job is."""

    GENERATE = "generate"
    TRANSFORM = "transform"
    INPAINT = "inpaint"
    ENHANCE = "enhance"
    INTERPOLATE = "interpolate"
    BLEND = "blend"
    TRAIN = "train"
    PRESET = "preset"
    PIPELINE = "pipeline"
    BATCH = "batch"
    """Many runs of one flow."""
    WORKFLOW = "workflow"
    """One of ComfyUI, from a file of the volume."""


def flows_of(kind: WorkflowType | None = None) -> tuple[str, ...]:
    """Names of the flows of a type; None is any."""
    presets = catalog().preset_ids()
    if kind is WorkflowType.PRESET:
        return presets
    if kind is WorkflowType.WORKFLOW:
        return flow_names()
    if kind is not None:
        return (_flow_of(kind),)
    one_each = (_flow_of(known) for known in WorkflowType if known not in MANY)
    return (*one_each, *presets, *flow_names())


def _flow_of(kind: WorkflowType) -> str:
    return TRAINING if kind is WorkflowType.TRAIN else kind.value


def type_of(flow: str) -> WorkflowType | None:
    """The type of a flow; None where it is no workflow."""
    if flow in catalog().preset_ids():
        return WorkflowType.PRESET
    if workflow_of(flow) is not None:  # its files may be gone, its jobs are there
        return WorkflowType.WORKFLOW
    one_each = (kind for kind in WorkflowType if kind not in MANY)
    return next((kind for kind in one_each if _flow_of(kind) == flow), None)


def flow_named(workflow: str) -> str:
    """The flow of a workflow, which may be called by its operation.

    Raises:
        ContractMismatchError: there is none of this name.
    """
    known = flows_of()
    flow = {**OPERATIONS, WorkflowType.TRAIN.value: TRAINING}.get(workflow, workflow)
    if flow in known:
        return flow
    near = get_close_matches(workflow, [*known, *OPERATIONS], n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ContractMismatchError(
        f"there is no workflow {workflow[:80]!r}{meant}",
        f"name one of {', '.join([*known, *OPERATIONS])}",
    )


MANY = (WorkflowType.PRESET, WorkflowType.WORKFLOW)
"""Types that stand for any number of flows."""


def contract_of(flow: str) -> Contract:
    """What a flow takes; loaded once, but for those that are made of files which people change."""
    return _contract(flow) if workflow_of(flow) is None else contract(flow)


@cache
def _contract(flow: str) -> Contract:
    return contract(flow)


def check(flow: str, parameters: Mapping[str, JsonValue]) -> None:
    """Refuse parameters as the flow would, before a run of it exists.

    Raises:
        PipelineError: what of them is wrong, with its code.
    """
    for where, value in _values(parameters):
        if isinstance(value, dict) and MARK in value:
            raise InvalidFieldValueError(
                f"{flow}: field {where} names a value of the server by {MARK}",
                "send the value itself",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidFieldValueError(
                f"{flow}: field {where} is {value}, expected a finite number", f"correct {where}"
            )
    contract_of(flow).flow.checked(dict(parameters))
    if flow == PIPELINE:
        call_input = cast("dict[str, JsonValue]", parameters.get("call_input") or {})
        pipelines().check_pipeline(parameters, call_input)
    elif "overrides" in parameters and type_of(flow) is WorkflowType.PRESET:
        quality = parameters.get("quality")
        level = quality if isinstance(quality, str) else None
        catalog().check_overrides(flow, level, parameters["overrides"], parameters)


def _values(parameters: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Every value within the parameters, with its field."""
    waiting: list[tuple[str, JsonValue]] = [("parameters", dict(parameters))]
    while waiting:
        where, value = waiting.pop()
        yield where, value
        if isinstance(value, dict):
            waiting += [(f"{where}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            inside: Sequence[JsonValue] = value
            waiting += [(f"{where}.{at}", inner) for at, inner in enumerate(inside)]
