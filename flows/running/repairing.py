"""What became of a run that failed, and with which settings it is made again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from prefect.exceptions import ObjectNotFound
from pydantic import JsonValue

from presets.base.catalog import find_preset, preset_ids
from presets.base.preset import QUALITIES, Knobs, Overrides, Quality
from presets.base.rerun import RerunParams
from safelight.client.asking import patient_client
from safelight.errors import InvalidFieldValueError, MissingFileError
from safelight.params import Params
from safelight.provenance.endings import failure_in
from safelight.provenance.manifest import MANIFESTS, Failure, Manifest
from safelight.provenance.replay import find_run
from tasks.base.catalog import stages
from tasks.base.sizing import size_for

MENDED_BY_SETTINGS = frozenset({"OUT_OF_MEMORY", "UNKNOWN_ERROR"})
"""Codes after which less is asked for."""
MENDED_BY_ANOTHER_TRY = frozenset(
    {
        *("ENGINE_OFFLINE", "ENGINE_TIMEOUT", "INSUFFICIENT_FUNDS", "RATE_LIMIT_EXCEEDED"),
        *("DEPENDENCY_MISSING", "STORE_UNAVAILABLE", "DOWNLOAD_FAILED", "DISK_FULL"),
    }
)
"""Codes after which another engine, or the same one later, may do what was asked for."""
GRAIN = 64
"""Sides that are made shorter are multiples of this: the coarsest level of common U-Nets."""


@dataclass(frozen=True)
class FailedRun:
    """A run that failed."""

    flow_run_id: str
    """Prefect's id of it."""
    flow: str
    """Name of its flow."""
    parameters: dict[str, JsonValue]
    """As it was called; with its seed, and stored media, where it left a manifest."""
    failure: Failure
    """Why it failed."""
    engines: frozenset[str] = frozenset()
    """Engines of the stages that failed."""


@dataclass
class Repair:
    """How a run is made again."""

    parameters: dict[str, JsonValue]
    """What the flow is called with."""
    changes: list[JsonValue] = field(default_factory=list[JsonValue])
    """What is not as it was, for people."""


def failed_run(flow_run_id: UUID) -> FailedRun:
    """Read a run from the Prefect server, and what it left from the store.

    Raises:
        MissingFileError: the server knows no such run.
        InvalidFieldValueError: it did not fail, or failed in a way that no other setting mends.
    """
    with patient_client() as client:
        try:
            run = client.read_flow_run(flow_run_id)
            flow = client.read_flow(run.flow_id).name
        except ObjectNotFound as error:
            raise MissingFileError(
                f"the Prefect server knows no run {flow_run_id}",
                "take the id from the Prefect UI, or from /api/jobs",
            ) from error
    state = run.state
    if state is None or not (state.is_failed() or state.is_crashed()):
        found = state.name if state is not None and state.name else "no state"
        raise InvalidFieldValueError(
            f"run {flow_run_id} of {flow} did not fail: its state is {found}",
            "name a run that is Failed or Crashed",
        )
    failure = failure_in(state.message or state.name or "")
    if failure.code not in MENDED_BY_SETTINGS | MENDED_BY_ANOTHER_TRY:
        raise InvalidFieldValueError(
            f"run {flow_run_id} of {flow} failed with {failure.code}, which no other setting and "
            f"no other engine mends: {failure.problem}",
            failure.remedy,
        )
    try:
        rerun = find_run(f"{MANIFESTS}{flow_run_id}.json")
    except MissingFileError:  # its process died before it wrote one
        return FailedRun(str(flow_run_id), flow, dict(run.parameters), failure)
    return FailedRun(
        str(flow_run_id), flow, rerun.parameters, failure, _failed_engines(rerun.manifest)
    )


def _failed_engines(manifest: Manifest) -> frozenset[str]:
    failed = (entry for entry in manifest.stages if entry.status == "failed")
    return frozenset(entry.engine.engine_id for entry in failed)


def repaired(failed: FailedRun, how: RerunParams, quality: Quality | None) -> Repair:
    """The parameters with which a run is made again.

    Args:
        failed: the run.
        how: what is changed.
        quality: level that a preset runs at whatever else is said.
    """
    repair = Repair(dict(failed.parameters))
    if failed.flow in preset_ids():
        _lower_quality(repair, failed.flow, how, quality)
        if failed.failure.code in MENDED_BY_SETTINGS:
            _smaller_steps(repair, failed.flow, how)
    elif failed.flow in stages() and failed.failure.code in MENDED_BY_SETTINGS:
        params_type = stages()[failed.flow].params_type
        smaller = _smaller(repair.parameters, _defaults(params_type), how, at_will=True)
        _change(repair, repair.parameters, smaller, "")
    return repair


def _lower_quality(
    repair: Repair, preset_id: str, how: RerunParams, quality: Quality | None
) -> None:
    known = find_preset(preset_id)
    before = cast(Quality, repair.parameters.get("quality") or "standard")
    wanted = quality or ("low" if how.quality == "low" else before)
    if wanted == before:
        return
    repair.parameters["quality"] = wanted
    repair.changes.append(f"quality: {wanted}, was {before}")
    steps = known.at(wanted).steps()
    overrides = cast(Overrides, repair.parameters.get("overrides") or {})
    gone = [step for step in overrides if step not in steps]
    if gone:
        repair.parameters["overrides"] = cast(
            JsonValue, {step: given for step, given in overrides.items() if step in steps}
        )
        repair.changes += [
            f"overrides.{step}: left out, {wanted} has no such step" for step in gone
        ]


def _smaller_steps(repair: Repair, preset_id: str, how: RerunParams) -> None:
    level = cast(Quality, repair.parameters.get("quality") or QUALITIES[1])
    given = cast(Overrides, repair.parameters.get("overrides") or {})
    knobs = find_preset(preset_id).at(level, given)
    overrides: dict[str, dict[str, JsonValue]] = {step: dict(each) for step, each in given.items()}
    for step in knobs.steps():
        params = cast(Params, getattr(knobs, step))
        values, own_size = _values(knobs, params)
        smaller = _smaller({}, values, how, at_will=not own_size)
        if smaller:
            _change(repair, overrides.setdefault(step, {}), smaller, f"overrides.{step}.")
    if overrides:
        repair.parameters["overrides"] = cast(JsonValue, overrides)


def _values(knobs: Knobs, params: Params) -> tuple[dict[str, Any], bool]:
    """Values of a step, with the size that its model gives it; and whether it draws no other."""
    values = params.model_dump(mode="json")
    aspect = getattr(knobs, "aspect", None)
    if aspect is None or "width" not in values or "width" in params.model_fields_set:
        return values, False
    size = size_for(values.get("model"), aspect)
    return {**values, "width": size.width, "height": size.height}, bool(size.enlargements)


def _defaults(params_type: type[Params]) -> dict[str, Any]:
    fields = params_type.model_fields.items()
    return {name: info.default for name, info in fields if not info.is_required()}


def _smaller(
    given: Mapping[str, Any], values: Mapping[str, Any], how: RerunParams, *, at_will: bool
) -> dict[str, JsonValue]:
    """Fields of a stage that ask for less than it had."""
    held = {**values, **given}
    found: dict[str, JsonValue] = {}
    tile = held.get("tile")
    if how.tile is not None and isinstance(tile, int) and tile > how.tile:
        found["tile"] = how.tile
    if at_will and how.side < 1:
        for side in ("width", "height"):
            length = held.get(side)
            if isinstance(length, int) and length > GRAIN:
                found[side] = max(GRAIN, int(length * how.side) // GRAIN * GRAIN)
    return found


def _change(
    repair: Repair, place: dict[str, JsonValue], smaller: dict[str, JsonValue], where: str
) -> None:
    for name, value in smaller.items():
        before = place.get(name)
        place[name] = value
        was = "" if before is None else f", was {before}"
        repair.changes.append(f"{where}{name}: {value}{was}")
