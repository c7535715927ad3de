"""Manifests of runs that could not write theirs: those under way, refused, lost with their process.

A run that has several stages keeps its manifest as it stands after each of them. Whoever finds that
its process is gone completes it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue, ValidationError

from safelight.errors import NO_REMEDY, MissingFileError, PipelineError, UnknownError
from safelight.provenance.manifest import MANIFESTS, Failure, Manifest, load_manifest
from safelight.provenance.surroundings import versions
from safelight.store.store import Store

UNDER_WAY = Failure(
    code=UnknownError.code,
    problem="the run has not come to its end",
    remedy="wait for it, or look at its state: this is what was done by then",
)
"""The error in a manifest that a run keeps while it goes on."""
UNKNOWN_DEVICE = "unknown"
"""Of a run whose process was lost before it had told anything."""
_SAID = re.compile(r"\[([A-Z_]+)\] (.*?)(?:\. Fix: (.*?)\.?)?$", re.DOTALL)


def failure_in(message: str, remedy: str = NO_REMEDY) -> Failure:
    """What a state's message says, which is `[CODE] problem. Fix: remedy.` where it is ours.

    Args:
        message: of the state.
        remedy: for other messages, and ours without one.
    """
    said = _SAID.search(message)
    if said is None:
        return Failure(code=UnknownError.code, problem=message, remedy=remedy)
    return Failure(code=said[1], problem=said[2], remedy=said[3] or remedy)


def never_begun(
    flow: str, flow_run_id: str, parameters: Mapping[str, JsonValue], failure: Failure
) -> Manifest:
    """The manifest of a run of which nothing is known but how it was called and how it ended.

    Args:
        flow: its name.
        flow_run_id: Prefect's id of it.
        parameters: as it was called, unchecked; left out where a manifest cannot hold them.
        failure: why it ended.
    """
    now = datetime.now(UTC).isoformat()
    facts: dict[str, object] = {
        "flow": flow,
        "flow_run_id": flow_run_id,
        "versions": versions(),
        "device_class": UNKNOWN_DEVICE,
        "device_name": UNKNOWN_DEVICE,
        "started": now,
        "ended": now,
        "success": False,
        "error": failure,
    }
    try:
        return Manifest.model_validate({**facts, "parameters": dict(parameters)})
    except ValidationError:
        return Manifest.model_validate({**facts, "parameters": {}})


def lost(
    store: Store,
    flow: str,
    flow_run_id: str,
    parameters: Mapping[str, JsonValue],
    failure: Failure,
) -> Manifest:
    """The manifest of a run whose process is gone: what it kept by then, and why it ended.

    Args:
        store: where the run kept it.
        flow: its name.
        flow_run_id: Prefect's id of it.
        parameters: as it was called.
        failure: why it ended.

    Raises:
        StoreUnavailableError: the store did not answer.
    """
    try:
        kept = load_manifest(f"{MANIFESTS}{flow_run_id}.json", store)
    except MissingFileError:
        return never_begun(flow, flow_run_id, parameters, failure)
    except PipelineError as error:
        if error.transient:
            raise
        return never_begun(flow, flow_run_id, parameters, failure)  # it was cut short
    return kept.model_copy(
        update={
            "results": (),
            "ended": datetime.now(UTC).isoformat(),
            "success": False,
            "error": failure,
        }
    )
